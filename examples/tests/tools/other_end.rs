//! Who listens: agents, and others.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use spop_blocking::{Agent, Health, StopHandle};
use spop_proto::wire::{AgentHello, Disconnect, Flags, Frame, FrameHeader, FrameType};
use spop_proto::{AgentConfig, HandlerError, Notify, Scope, Service, Status, Value};

/// An agent on a thread of its own.
pub(crate) struct Running {
    pub(crate) endpoint: String,
    pub(crate) health: Health,
    stop: StopHandle,
    thread: Option<thread::JoinHandle<()>>,
}

impl Running {
    pub(crate) fn start<S: Service + 'static>(agent: Agent<S>, endpoint: &str) -> Self {
        let server = agent.bind(endpoint).unwrap();
        let (endpoint, stop) = (server.local_addr().to_string(), server.stop_handle());
        let health = server.health();
        let thread = Some(thread::spawn(move || {
            server.run().unwrap();
        }));
        Self { endpoint, health, stop, thread }
    }

    pub(crate) fn on_tcp<S: Service + 'static>(agent: Agent<S>) -> Self {
        Self::start(agent, "127.0.0.1:0")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the agent panicked");
        }
    }
}

/// What [`described`] takes. Longer than a frame of 256 bytes.
pub(crate) const DESCRIPTION: &str = "\
message check-client-ip
    arg ip ip = src
    arg path str optional = path
    arg host str optional = req.hdr(host)
    arg agent str optional = req.hdr(user-agent)
    arg length int optional = req.hdr_val(content-length)
message check-body
    arg body bytes = req.body
";

/// An agent that says so.
pub(crate) fn described() -> Agent<impl Service + 'static> {
    let description = DESCRIPTION.parse().unwrap();
    scoring().config(AgentConfig::new().description(Some(&description)))
}

/// The agent of README: an address gets a score.
pub(crate) fn scoring() -> Agent<impl Service + 'static> {
    scoring_as(95)
}

/// The same with that score for addresses of 203.0.113.0/24.
pub(crate) fn scoring_as(bad: i32) -> Agent<impl Service + 'static> {
    Agent::inline(move |notify: Notify<'_>, ack: &mut spop_blocking::Ack<'_>| {
        if let Some(message) = notify.message("check-client-ip") {
            let ip: std::net::Ipv4Addr = message.get("ip")?;
            let known = ip.octets().starts_with(&[203, 0, 113]);
            ack.set(Scope::Transaction, "ip_score", if known { bad } else { 10 })?;
        }
        Ok::<(), HandlerError>(())
    })
}

/// Sets a variable for each argument of each message to its value, and `asked` to the messages' names.
pub(crate) fn mirror(config: AgentConfig) -> Agent<impl Service + 'static> {
    let agent = Agent::inline(|notify: Notify<'_>, ack: &mut spop_blocking::Ack<'_>| {
        let mut asked = String::new();
        for message in notify.messages() {
            asked.push_str(&format!("{} ", message.name().escape_ascii()));
            for (index, arg) in message.args().enumerate() {
                let name = match arg.name {
                    [] => format!("arg{index}"),
                    name => name.escape_ascii().to_string(),
                };
                match arg.value {
                    Value::Bin(bytes) if bytes.len() > 100 => {
                        ack.set(Scope::Request, &name, u64::try_from(bytes.len())?)?;
                    }
                    value => ack.set(Scope::Request, &name, value)?,
                }
            }
        }
        ack.set(Scope::Transaction, "asked", asked.trim_end())?;
        Ok::<(), HandlerError>(())
    });
    agent.config(config)
}

/// A port where nobody listens.
pub(crate) fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// What a peer that is no agent, or not a good one, does with a connection.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    /// Closes at once.
    Close,
    /// Says that once something has come, and is silent until the other side closes.
    Say(Vec<u8>),
    /// The same, then that once something more has come.
    SayTwice(Vec<u8>, Vec<u8>),
    /// The same, and closes.
    SayTwiceAndClose(Vec<u8>, Vec<u8>),
}

/// Such a peer, and its address. It ends with the process.
pub(crate) fn peer(script: Script) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            play(&script, stream.unwrap());
        }
    });
    address
}

fn play(script: &Script, mut stream: TcpStream) {
    let say = |stream: &mut TcpStream, bytes: &[u8]| {
        // A frame arrives whole here: they are small, and each is written at once.
        let mut chunk = [0; 65_536];
        let more = stream.read(&mut chunk).is_ok_and(|read| read > 0);
        if more && !bytes.is_empty() {
            // The other side may have had enough.
            let _ = stream.write_all(bytes);
        }
    };
    match script {
        Script::Close => return,
        Script::Say(bytes) => say(&mut stream, bytes),
        Script::SayTwice(first, second) | Script::SayTwiceAndClose(first, second) => {
            say(&mut stream, first);
            say(&mut stream, second);
        }
    }
    if !matches!(script, Script::SayTwiceAndClose(..)) {
        // Until the other side has closed.
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

pub(crate) fn agent_hello(version: &str) -> Vec<u8> {
    let hello = AgentHello {
        version: Some(version.as_bytes()),
        max_frame_size: Some(1000),
        capabilities: Some(b""),
        ..AgentHello::default()
    };
    let mut payload = Vec::new();
    hello.encode(&mut payload);
    frame(FrameType::AGENT_HELLO, (0, 0), &payload)
}

/// An AGENT-HELLO with that description.
pub(crate) fn agent_hello_that_says(description: &[u8]) -> Vec<u8> {
    let hello = AgentHello {
        version: Some(b"2.0"),
        max_frame_size: Some(1000),
        capabilities: Some(b""),
        description: Some(description),
    };
    let mut payload = Vec::new();
    hello.encode(&mut payload);
    frame(FrameType::AGENT_HELLO, (0, 0), &payload)
}

pub(crate) fn agent_disconnect(status: u32, message: &str) -> Vec<u8> {
    let mut payload = Vec::new();
    Disconnect { status: Status(status), message: message.as_bytes() }.encode(&mut payload);
    frame(FrameType::AGENT_DISCONNECT, (0, 0), &payload)
}

/// A whole frame.
pub(crate) fn frame(kind: FrameType, ids: (u64, u64), payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader { kind, flags: Flags::FIN, stream_id: ids.0, frame_id: ids.1 };
    let mut bytes = Vec::new();
    Frame { header, payload }.encode(&mut bytes);
    bytes
}
