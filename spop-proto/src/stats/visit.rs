//! The list of what is published, in the words of monitoring systems: once, for all of them.

use super::kinds::{CloseKind, ConnectionKind, STATUS_LABELS};
use super::{Histogram, Snapshot};

/// A name, with what it means.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
}

/// A label and its value.
pub(super) type Label = (&'static str, &'static str);

/// Where it goes.
pub(super) trait Visitor {
    type Error;

    /// A value that rises and falls, one for each set of labels.
    fn gauges(&mut self, family: Family, samples: &[(&[Label], u64)]) -> Result<(), Self::Error>;

    /// A value that only rises, one for each value of the label.
    fn counters(
        &mut self,
        family: Family,
        samples: &mut dyn Iterator<Item = (Option<Label>, u64)>,
    ) -> Result<(), Self::Error>;

    /// A value that only rises, one for each message.
    fn messages(&mut self, family: Family, samples: &[(Box<str>, u64)]) -> Result<(), Self::Error>;

    /// Times.
    fn histogram(&mut self, family: Family, times: &Histogram) -> Result<(), Self::Error>;
}

impl Snapshot {
    pub(super) fn visit<V: Visitor>(&self, to: &mut V) -> Result<(), V::Error> {
        let stats = &self.stats;
        let family = |name, help| Family { name, help };

        let labels = [("version", env!("CARGO_PKG_VERSION")), ("runtime", self.runtime)];
        to.gauges(family("spop_agent_info", "Always 1."), &[(&labels, 1)])?;
        let open = family("spop_agent_connections", "Connections that are open.");
        to.gauges(open, &[(&[], self.open())])?;
        let owed = family("spop_agent_in_flight", "Answers owed.");
        to.gauges(owed, &[(&[], self.in_flight())])?;
        let held =
            family("spop_agent_reassembly_bytes", "Bytes held of payloads that come in fragments.");
        to.gauges(held, &[(&[], self.reassembly_bytes)])?;

        let kinds = ConnectionKind::ALL.into_iter();
        to.counters(
            family("spop_agent_connections_total", "Connections, by who they are from."),
            &mut kinds.map(|kind| (Some(("dialect", kind.label())), self.connections_of(kind))),
        )?;
        to.counters(
            family("spop_agent_closes_total", "Connections that ended, by how."),
            &mut CloseKind::ALL
                .into_iter()
                .map(|kind| (Some(("reason", kind.label())), self.closed(kind))),
        )?;
        to.counters(
            family(
                "spop_agent_protocol_errors_total",
                "Connections ended because the peer broke the protocol or a time limit, by the status it was told.",
            ),
            &mut STATUS_LABELS
                .into_iter()
                .zip(self.statuses)
                .map(|(status, count)| (Some(("status", status)), count)),
        )?;
        let single = [
            ("spop_agent_frames_total", "Frames received.", stats.frames),
            ("spop_agent_ignored_frames_total", "Frames that meant nothing here.", stats.ignored),
            ("spop_agent_notifies_total", "Requests received: NOTIFYs.", stats.notifies),
        ];
        for (name, help, value) in single {
            to.counters(family(name, help), &mut [(None, value)].into_iter())?;
        }
        if !self.messages.is_empty() {
            let messages = family(
                "spop_agent_messages_total",
                "Messages in requests, by name; `other` are those without a handler of their own.",
            );
            to.messages(messages, &self.messages)?;
        }
        let causes = [
            ("handler", stats.answered),
            ("error", stats.errors),
            ("panic", stats.panics),
            ("deadline", stats.deadlines),
            ("shed", stats.shed),
            ("unanswered", stats.unanswered),
            ("superseded", stats.superseded),
            ("abandoned", stats.abandoned),
        ];
        to.counters(
            family(
                "spop_agent_answers_total",
                "What became of requests: `handler` is the answer that was wanted, `superseded` and `abandoned` are none, all others the fallback.",
            ),
            &mut causes.into_iter().map(|(cause, count)| (Some(("cause", cause)), count)),
        )?;
        let given_up = [("haproxy", stats.aborted), ("agent", stats.refused)];
        to.counters(
            family(
                "spop_agent_payloads_given_up_total",
                "Fragmented payloads given up before they were whole.",
            ),
            &mut given_up.into_iter().map(|(by, count)| (Some(("by", by)), count)),
        )?;
        let single = [
            (
                "spop_agent_too_big_total",
                "Answers of which an action did not fit the frame.",
                stats.too_big,
            ),
            (
                "spop_agent_held_total",
                "Answers held back so that they do not fill HAProxy's receive buffer.",
                stats.held,
            ),
            ("spop_agent_received_bytes_total", "Bytes read from HAProxy.", self.received_bytes),
            ("spop_agent_sent_bytes_total", "Bytes the sockets have taken.", self.sent_bytes),
        ];
        for (name, help, value) in single {
            to.counters(family(name, help), &mut [(None, value)].into_iter())?;
        }
        to.histogram(
            family(
                "spop_agent_answer_seconds",
                "From the read that brought a request to its answer at the socket.",
            ),
            &self.answer_time,
        )?;
        to.histogram(
            family(
                "spop_agent_handler_seconds",
                "The part of it in a handler; requests answered in one go share their time evenly.",
            ),
            &self.handler_time,
        )
    }
}
