//! The captures of real HAProxy processes as inputs, made when they are wanted.

use std::path::Path;
use std::{fs, io};

/// Where the captures are.
pub const CAPTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../spop-proto/tests/captures");

/// Scripts that captures are played with: the usual thing, then each with something unusual.
const SCRIPTS: [&[u8]; 4] = [
    &[],
    // Cut small; handlers that answer, drop, defer, fall back, forget, fill, move.
    &[0, 0, 0, 0, 8, 0, 1, 0x82, 3, 4, 0x55, 0x86, 7, 1, 2, 3, 5, 8, 13, 0],
    // Small limits, and a wild sequence.
    &[
        1, 0xff, 0, 0, 1, 1, 1, 1, 4, 0, 2, 6, 5, 0x10, 0x66, 0x12, 0x09, 0x44, 6, 0x30, 8, 0x54,
        12, 0,
    ],
    // Short times.
    &[1, 0, 0xff, 0, 3, 2, 0x12, 0, 0x30, 0x45, 12, 0x26, 0x50, 6, 12, 0x09, 12, 12, 6],
];

/// The captures: their bytes, and whether HAProxy sent them.
///
/// # Errors
/// When they cannot be read.
pub fn captures() -> io::Result<Vec<(String, bool, Vec<u8>)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(CAPTURES)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(stem) = name.strip_suffix(".bin") {
            all.push((stem.to_owned(), stem.ends_with("from-haproxy"), fs::read(&path)?));
        }
    }
    all.sort();
    Ok(all)
}

/// The seeds of a target, by name.
///
/// # Errors
/// When the captures cannot be read.
pub fn of(target: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut seeds = Vec::new();
    for (name, from_haproxy, bytes) in captures()? {
        let mut add = |at: usize, input: Vec<u8>| seeds.push((format!("{name}-{at}"), input));
        match target {
            "agent" | "driver" if from_haproxy => {
                for (at, script) in SCRIPTS.iter().enumerate() {
                    add(at, with_script(script, &bytes));
                }
            }
            "engine" if !from_haproxy => {
                for dialect in 0..2 {
                    add(usize::from(dialect), with_script(&[0, dialect, 0, 0x1e], &bytes));
                    add(
                        usize::from(dialect) + 2,
                        with_script(&[1, dialect, 0, 4, 4, 4, 9, 0], &bytes),
                    );
                }
            }
            "naive" => add(0, [&[0], &bytes[..]].concat()),
            "hello" => {
                // The payload of the first frame: its length, type, flags and ids take 11 bytes.
                let hello = crate::naive::cut(&bytes).map(|(frame, _)| frame);
                if let Some(payload) = hello.as_deref().and_then(|frame| frame.get(7..)) {
                    add(0, with_script(&[if from_haproxy { 0 } else { 2 }], payload));
                }
            }
            // Arbitrary bytes are as good as any for those that make their frames themselves.
            "pair" | "roundtrip" => add(0, bytes.iter().copied().take(160).collect()),
            _ => {}
        }
    }
    Ok(seeds)
}

/// Writes the seeds of a target into a folder, which is made.
///
/// # Errors
/// When they cannot be written.
pub fn write(target: &str, folder: &Path) -> io::Result<usize> {
    fs::create_dir_all(folder)?;
    let seeds = of(target)?;
    for (name, bytes) in &seeds {
        fs::write(folder.join(name), bytes)?;
    }
    Ok(seeds.len())
}

fn with_script(script: &[u8], bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(script.len()).unwrap_or(u8::MAX);
    [&[length], script, bytes].concat()
}
