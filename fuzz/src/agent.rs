//! Bytes into an agent's connection.

use crate::hello;
use crate::rig::{Rig, Trace};
use crate::script::Script;
use crate::settings::{Settings, ms};

/// Steps of the clock.
const STEPS: [u64; 8] = [1, 0, 4, 20, 100, 500, 1000, 31_000];

/// One input: what the peer sends, and a script for everything else.
pub fn run(data: &[u8]) {
    let (mut script, wire) = Script::split(data);
    let how = script.byte();
    let settings = Settings::read(&mut script);
    let answers = script.byte();
    let answers = script.take(usize::from(answers % 16));
    let mut bytes = match how >> 1 & 3 {
        1 => hello::haproxy(16_380, "pipelining,async"),
        2 => hello::haproxy(16_380, "pipelining"),
        3 => hello::haproxy(256, ""),
        _ => Vec::new(),
    };
    bytes.extend_from_slice(wire);
    if how & 1 == 0 {
        calm(&settings, answers, &bytes, script);
    } else {
        wild(&settings, answers, &bytes, script, how & 8 != 0);
    }
}

/// However the bytes are cut, the same comes of them.
fn calm(settings: &Settings, answers: &[u8], bytes: &[u8], script: Script<'_>) {
    let whole = deliver(settings, answers, bytes, None);
    let cut = deliver(settings, answers, bytes, Some(script));
    assert_eq!(whole, cut, "another cut, another end");
}

/// Everything at one instant, to a peer that takes every answer at once.
fn deliver(settings: &Settings, answers: &[u8], bytes: &[u8], cuts: Option<Script<'_>>) -> Trace {
    let mut rig = Rig::new(settings, answers, bytes.len(), false);
    match cuts {
        None => {
            rig.feed(bytes);
            rig.settle(true);
        }
        Some(mut cuts) => {
            let mut rest = bytes;
            while !rest.is_empty() {
                // A byte for each of the first, then larger ones, or large inputs would take for ever.
                let usual = 1 + bytes.len() / 64;
                let size = if cuts.spent() { usual } else { 1 + usize::from(cuts.byte()) };
                let (chunk, after) = rest.split_at(size.min(rest.len()));
                rig.feed(chunk);
                rig.settle(true);
                rest = after;
            }
        }
    }
    rig.finish(true);
    rig.trace()
}

/// Time passes, answers come late, the peer reads or does not, somebody leaves.
fn wild(
    settings: &Settings,
    answers: &[u8],
    bytes: &[u8],
    mut script: Script<'_>,
    over_limit: bool,
) {
    const CHUNK: usize = 2048;
    let mut rig = Rig::new(settings, answers, CHUNK, over_limit);
    let mut rest = bytes;
    while !rest.is_empty() || !script.spent() {
        let op = script.byte();
        let much = usize::from(op >> 4);
        match op & 0x0f {
            0..=3 => {
                // A driver reads when it is told to, and looks at what is kept before it reads more.
                rig.settle(false);
                if rig.conn.interest().read && !rest.is_empty() {
                    let size = if much == 0 { CHUNK } else { much * much };
                    let (chunk, after) = rest.split_at(size.min(rest.len()));
                    rig.feed(chunk);
                    rest = after;
                } else if script.spent() {
                    break;
                }
            }
            4 | 5 => rig.pass(ms(STEPS[much % STEPS.len()])),
            6 => rig.take(usize::MAX),
            7 => rig.take(much),
            8 => rig.swap(),
            9 | 10 => rig.answer(much),
            11 => rig.settle(much % 2 == 0),
            12 => {
                if let Some(deadline) = rig.conn.interest().deadline {
                    rig.now = rig.now.max(deadline);
                }
                rig.timeout();
            }
            13 => rig.timeout(),
            14 if much == 1 => rig.conn.shutdown(rig.now),
            14 if much == 2 => {
                let message = "closed by the script. ".repeat(much * 8);
                rig.conn.close(spop_proto::Status::UNKNOWN, &message, rig.now);
            }
            15 if much == 1 => rig.conn.peer_closed(rig.now),
            _ => {}
        }
    }
    rig.finish(script_takes(answers));
}

fn script_takes(answers: &[u8]) -> bool {
    answers.first().is_none_or(|first| first & 0x40 == 0)
}
