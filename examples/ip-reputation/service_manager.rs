//! What systemd is told with `Type=notify` or `Type=notify-reload`: that HAProxy can be sent here, that a list
//! is read again, that the agent leaves. Without `NOTIFY_SOCKET` nobody wants to know.

use std::sync::atomic::{AtomicBool, Ordering};

use sd_notify::NotifyState;
use tracing::warn;

/// Tells the service manager, in the order that it expects. Telling never fails: an agent that cannot
/// speak to its manager serves all the same.
#[derive(Debug, Default)]
pub(crate) struct ServiceManager {
    /// Between "ready" and "stopping": before and after it, a list that was read again is no news.
    serving: AtomicBool,
}

impl ServiceManager {
    /// There is a listener, and whoever connects is served.
    pub(crate) fn ready(&self) {
        self.serving.store(true, Ordering::Release);
        tell(&[NotifyState::Ready]);
    }

    /// The agent serves for a while yet, and takes no new work after that.
    pub(crate) fn stopping(&self) {
        self.serving.store(false, Ordering::Release);
        tell(&[NotifyState::Stopping]);
    }

    /// Says before `reload` that it begins, and after it that it is over.
    pub(crate) fn while_reloading(&self, reload: impl FnOnce()) {
        if self.serving.load(Ordering::Acquire) {
            // By its time the manager knows that this answers its signal, and not an older one.
            match NotifyState::monotonic_usec_now() {
                Ok(time) => tell(&[NotifyState::Reloading, time]),
                Err(error) => warn!("the service manager is not told of the reload: {error}"),
            }
        }
        reload();
        if self.serving.load(Ordering::Acquire) {
            tell(&[NotifyState::Ready]);
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("the service manager cannot be told: {error}");
    }
}
