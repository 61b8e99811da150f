//! The same agent on the crate `spop`, as its own example is written, with `TCP_NODELAY`.

use std::io;

use futures_util::{SinkExt, StreamExt};
use socket2::SockRef;
use spop::actions::VarScope;
use spop::frame::{FramePayload, FrameType};
use spop::frames::{Ack, AgentHello, FrameCapabilities, HaproxyHello};
use spop::{MAX_FRAME_SIZE_LIMIT, SpopCodec, TypedData};
use spop_proto::server::BACKLOG;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::Framed;

pub(crate) async fn run(listen: &str) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    // As the other agents do, or thousands of connections at once would wait a second.
    SockRef::from(&listener).listen(BACKLOG)?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            if let Err(error) = serve(stream).await {
                eprintln!("bench-agent: {error}");
            }
        });
    }
}

async fn serve(stream: TcpStream) -> io::Result<()> {
    let mut socket = Framed::new(stream, SpopCodec::default());
    while let Some(frame) = socket.next().await {
        let frame = frame?;
        match frame.frame_type() {
            FrameType::HaproxyHello => {
                let hello = HaproxyHello::try_from(frame.payload())
                    .map_err(|_| io::Error::other("not a HELLO"))?;
                let version = hello.negotiate_version();
                let size = hello.negotiate_max_frame_size(MAX_FRAME_SIZE_LIMIT);
                let (Some(version), Ok(max_frame_size)) = (version, size) else {
                    return Err(io::Error::other("no version or size to agree on"));
                };
                socket.codec_mut().set_max_frame_size(max_frame_size);
                let capabilities = vec![FrameCapabilities::Pipelining];
                let hello = AgentHello { version, max_frame_size, capabilities };
                socket.send(Box::new(hello)).await?;
            }
            FrameType::Notify => {
                let ids = frame.metadata();
                let mut ack = Ack::new(ids.stream_id, ids.frame_id);
                if let FramePayload::ListOfMessages(messages) = frame.payload() {
                    for message in messages.iter().filter(|m| m.name == "check-client-ip") {
                        if let Some(TypedData::IPv4(ip)) = message.get("ip") {
                            let [.., last] = ip.octets();
                            ack = ack.set_var(VarScope::Transaction, "ip_score", i32::from(last));
                        }
                    }
                }
                socket.send(Box::new(ack)).await?;
            }
            _ => return Ok(()),
        }
    }
    Ok(())
}
