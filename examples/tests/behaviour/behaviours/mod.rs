//! The behaviours. Each starts its own agent, so all may run at once, in any order.

mod answers;
mod describe;
mod descriptors;
mod handlers;
mod handshake;
mod limits;
mod logs;
mod overload;
mod payload;
mod probes;
mod refusals;
mod sockets;
mod stop;
mod storm;

use std::time::Duration;

use crate::adapter::Mode;
use crate::bench::Bench;

/// Something every adapter does.
pub(crate) struct Behaviour {
    pub(crate) name: &'static str,
    modes: Modes,
    pub(crate) run: fn(&Bench),
}

/// The modes in which a behaviour can be seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Modes {
    All,
    /// Where requests of one connection are handled at the same time.
    Overtaking,
    /// Where they are not.
    Inline,
}

impl Behaviour {
    pub(crate) fn is_seen_in(&self, mode: Mode) -> bool {
        match self.modes {
            Modes::All => true,
            Modes::Overtaking => mode.overtakes(),
            Modes::Inline => !mode.overtakes(),
        }
    }

    /// Why this system cannot show it.
    pub(crate) fn cannot(&self) -> Option<&'static str> {
        let wants_proc = self.name == "out_of_descriptors" && !cfg!(target_os = "linux");
        wants_proc.then_some("the descriptors of a process are counted in Linux's /proc")
    }
}

const fn all(name: &'static str, run: fn(&Bench)) -> Behaviour {
    Behaviour { name, modes: Modes::All, run }
}

const fn overtaking(name: &'static str, run: fn(&Bench)) -> Behaviour {
    Behaviour { name, modes: Modes::Overtaking, run }
}

const fn inline(name: &'static str, run: fn(&Bench)) -> Behaviour {
    Behaviour { name, modes: Modes::Inline, run }
}

/// All of them, under the names they are reported by.
pub(crate) const ALL: &[Behaviour] = &[
    all("handshake", handshake::of_both_generations),
    all("health_check", handshake::health_check),
    all("describes_itself", describe::itself),
    all("refusals_before_the_handshake", refusals::before_the_handshake),
    all("refusals_after_the_handshake", refusals::after_the_handshake),
    all("refusal_of_what_the_engine_asks", refusals::of_what_the_engine_asks),
    all("answers_to_both_generations", answers::to_both_generations),
    all("frames_split_and_coalesced", answers::to_frames_split_and_coalesced),
    overtaking("twenty_answers_in_reverse", answers::in_reverse),
    overtaking("slow_does_not_block_quick", answers::quick_beside_slow),
    all("payload_in_fragments", payload::in_fragments),
    all("payload_given_up_by_haproxy", payload::given_up_by_haproxy),
    all("payload_given_up_by_the_agent", payload::given_up_by_the_agent),
    all("handler_fails_or_panics", handlers::that_fail_or_panic),
    overtaking("handler_fails_or_panics_later", handlers::that_fail_or_panic_later),
    overtaking("handler_is_late", handlers::that_are_late),
    all("answer_too_big_for_a_frame", handlers::that_answer_too_much),
    overtaking("closed_connection_cancels", handlers::whose_connection_closes),
    all("peer_never_reads", limits::peer_never_reads),
    all("peer_stops_within_a_frame", limits::peer_stops_within_a_frame),
    all("peer_says_no_hello", limits::peer_says_no_hello),
    overtaking("too_many_in_flight_are_shed", limits::in_flight_shed),
    overtaking("too_many_in_flight_wait", limits::in_flight_wait),
    overtaking("too_many_in_flight_of_the_agent_are_shed", overload::shed),
    overtaking("too_many_in_flight_of_the_agent_wait", overload::wait),
    overtaking("ended_connections_owe_nothing", overload::and_connections_that_end),
    all("fallback_says_why", overload::fallback_says_why),
    all("old_connections_leave", overload::old_connections_leave),
    all("probes_are_sent_away", probes::are_sent_away),
    all("connection_limit", limits::connections),
    all("out_of_descriptors", descriptors::run_out),
    all("stop_with_idle_connections", stop::with_idle_connections),
    overtaking("stop_with_answers_owed", stop::with_answers_owed),
    inline("stop_with_requests_unread", stop::with_requests_unread),
    all("stop_within_a_frame", stop::within_a_frame),
    all("stop_past_the_drain_deadline", stop::past_the_drain_deadline),
    overtaking("stop_past_the_drain_deadline_with_answers_owed", stop::past_it_with_answers_owed),
    all("stop_as_a_lame_duck", stop::as_a_lame_duck),
    all("stop_during_a_storm", storm::stop_during_it),
    all("log_about_requests", logs::about_requests),
    all("log_without_request_ids", logs::without_an_id),
    all("log_about_connections", logs::about_connections),
    all("log_about_overload", logs::about_overload),
    all("log_about_cut_bodies", logs::about_cut_bodies),
    all("unix_socket", sockets::unix),
    all("unix_socket_file", sockets::unix_file),
    all("tls", sockets::tls),
    all("tls_close_notify", sockets::tls_close_notify),
];

/// All have to have waited that long, and not all much longer: one alone may be due to the machine.
#[track_caller]
fn expect_about(limit: Duration, waits: &[Duration]) {
    let least = waits.iter().min().copied().unwrap_or_default();
    assert!(least >= limit && least < 4 * limit, "{waits:?} for a limit of {limit:?}");
}
