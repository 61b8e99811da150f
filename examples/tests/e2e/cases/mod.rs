//! The cases. Each starts its own HAProxy and its own agent, so all may run at once, in any order.

mod configuration;
mod lifecycle;
mod payload;
mod score;

use crate::bench::{Bench, Failure};

/// One case.
pub(crate) type Case = fn(&Bench) -> Result<(), Failure>;

/// Those in which `ip-reputation` takes part, under the names they are reported by.
pub(crate) const FOR_EACH_RUNTIME: &[(&str, Case)] = &[
    ("score_by_address", score::by_address),
    ("score_of_ipv6_addresses", score::of_ipv6_addresses),
    ("score_through_a_unix_socket", score::through_a_unix_socket),
    ("200_requests_32_in_parallel", score::of_200_requests_32_in_parallel),
    ("health_check_follows_the_agent", lifecycle::health_check_follows_the_agent),
    ("agent_stopped_and_started_under_load", lifecycle::agent_stopped_and_started_under_load),
    ("sighup_reloads_the_list_under_load", lifecycle::sighup_reloads_the_list_under_load),
    ("sigterm_drains", lifecycle::sigterm_drains),
    ("second_signal_ends_at_once", lifecycle::second_signal_ends_at_once),
    ("example_denies_above_80", configuration::example_denies_above_80),
    ("example_fails_closed_without_agent", configuration::example_fails_closed_without_agent),
    ("readme_configuration", configuration::readme_configuration),
    ("dotnet_configuration", configuration::dotnet_configuration),
];

/// Those without it.
pub(crate) const ONCE: &[(&str, Case)] = &[
    ("unnamed_and_repeated_arguments", payload::unnamed_and_repeated_arguments),
    ("header_that_is_not_utf8", payload::header_that_is_not_utf8),
    ("body_larger_than_the_frame", payload::body_larger_than_the_frame),
    ("shipped_files_are_accepted", configuration::shipped_files_are_accepted),
];
