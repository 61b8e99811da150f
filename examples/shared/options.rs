//! Values of options that more than one tool takes.

use std::time::Duration;

use spop_proto::{Endpoint, ParseEndpointError};

/// Where an agent listens.
pub(crate) fn agent(text: &str) -> Result<Endpoint, String> {
    match text.parse() {
        Ok(Endpoint::Systemd(_)) => {
            Err("that is an address to listen on: write HOST:PORT or unix:/PATH".to_owned())
        }
        parsed => parsed.map_err(|error: ParseEndpointError| error.to_string()),
    }
}

/// A day: nobody waits longer, and a clock can count so far.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A time in seconds, with or without a fraction, and not zero.
pub(crate) fn timeout(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(Duration::ZERO) => Err("no time at all".to_owned()),
        Ok(time) if time > LONGEST => Err("more than a day".to_owned()),
        parsed => parsed.map_err(|error| error.to_string()),
    }
}
