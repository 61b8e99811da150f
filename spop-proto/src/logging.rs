//! What adapters log, as a page: there is no code here, and this crate itself writes nothing.
//!
//! With the feature `tracing` (on by default in every adapter) they write the lines below as `tracing`
//! events. Levels, messages and names of fields are the same for all adapters and are an interface: a
//! change is in the changelog. Targets begin with the crate's name, so `RUST_LOG=info,spop_tokio=debug`
//! works. While all is well there is nothing above `info`, and nothing at all for a request.
//!
//! # Warnings
//! Each kind at most once in ten seconds for an agent; `suppressed` says how many more there were since
//! the last line of that kind. A kind is a row here, except that `no answer` has three: handlers that
//! return an error, that panic, and whose answer does not fit.
//!
//! | message | fields besides `suppressed` | what it means |
//! | --- | --- | --- |
//! | `no answer: HAProxy got the fallback` | `request_id`, `failure` | the handler failed: `failure` is its error, or `panicked: ` and the text |
//! | `late answer: HAProxy got the fallback` | `request_id`, `peer` | nothing came within [`Limits::answer_timeout`](crate::Limits::answer_timeout) |
//! | `too many requests: HAProxy got the fallback` | `peer`, `requests` | more were owed, or held back, than the limits allow, or the agent is about to leave: so many on that connection in one turn |
//! | `answers held back: they would fill HAProxy's receive buffer` | `peer`, `answers` | so many on that connection in one turn; see [`Pacing`](crate::Pacing) |
//! | `refused` | `peer`, `error`, `status` | the peer does not speak SPOP, broke the protocol or a time limit; `status` is what it was told |
//! | `HAProxy sends something else than this agent takes` | `mismatch` | an argument that a [`Router`](crate::Router)'s route declares is not sent, or as another type; once for each argument, without `suppressed`. As nothing but NULL in 1000 messages: at level info |
//! | `too many connections` | `peer` | more than [`Limits::connections`](crate::Limits::connections): all but health checks are turned away |
//! | `cannot accept` | `error`, `retry_in` | the system is short of something, descriptors as a rule |
//!
//! # Other levels
//! | level | message | fields |
//! | --- | --- | --- |
//! | error | `the task of a connection panicked: please report this` | |
//! | info | `agent listening` | `listen` |
//! | info | `first connection of HAProxy` | `peer`, `dialect`: `old` up to HAProxy 3.0, `new` from 3.1 on; once for each |
//! | info | `health checks for a minute and no request: see spop-lint for what HAProxy accepts and never asks` | once; as a rule a group that no rule sends, a message that is not listed or has no event, or no `filter spoe` |
//! | info | `argument may be a body cut at HAProxy's buffer, without an error: add length=req.hdr_val(content-length) to args and compare` | `spoe_message`, `argument`, `bytes`, `bufsize`; once for each argument: see [`Event::MaybeCut`](crate::Event::MaybeCut) |
//! | info | `stopping: health checks fail from now on` | `time`: that of the lame duck |
//! | info | `agent stopped` | `report`: [`Report`](crate::Report) in a line |
//! | debug | `handshake done` | `offered`, `announced`, `max_frame_size` |
//! | debug | `health check` | `healthy` |
//! | debug | `fragmented payload given up` | `stream_id`, `frame_id`, `by` |
//! | debug | `HAProxy said goodbye` | `status` |
//! | debug | `connection closed` | `reason`: a [`CloseReason`](crate::CloseReason) in words |
//! | trace | `NOTIFY` | `stream_id`, `frame_id`, `bytes`, `messages`: their names, with those of the arguments in parentheses |
//! | trace | `ACK` | `stream_id`, `frame_id`, `bytes`: those of the actions; an answer of a handler, and what is sent in its place is among the warnings |
//!
//! All lines of a connection are in a span `connection` of level debug, with `peer` and, after the
//! handshake, `dialect` and `engine_id`. `spop-blocking` has no span: its debug and trace lines have `peer`
//! themselves.
//!
//! # Which request it was
//! With [`AgentConfig::request_id`](crate::AgentConfig::request_id) (adapters: `agent.request_id("id")`)
//! lines about a request have `request_id`: HAProxy's `unique-id`, from the argument of that name. The
//! same id finds the request in HAProxy's log:
//!
//! ```haproxy
//! # haproxy.cfg
//! frontend web
//!     unique-id-format %[uuid()]
//!     log-format "%ci:%cp [%tr] %ft %ST %ID"
//!     filter spoe engine iprep config spoe.conf
//! ```
//! ```haproxy
//! # spoe.conf
//! spoe-message check-client-ip
//!     args  ip=src  id=unique-id
//!     event on-frontend-http-request
//! ```
//!
//! The field is left out where HAProxy sent no such argument. It is escaped and at most 128 bytes long. It
//! is looked up when the line is written; only for a request that waits in a future, or for a worker, its
//! bytes are copied when it begins to wait.
//!
//! # What is never logged
//! Values of a request, other than that one. What a handler says in its errors is its own affair: those of
//! this crate name messages, arguments and types, and no values.
