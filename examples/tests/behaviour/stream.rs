//! The client's end of a connection, of whatever kind.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

use rustls::{ClientConnection, StreamOwned};
use spop_proto::Endpoint;

use crate::PATIENCE;

/// Bytes in both directions. Reading and writing fail after [`PATIENCE`], so that an agent that
/// hangs fails a trial instead of holding it up.
pub(crate) trait Stream: Read + Write + Send {
    /// Says that nothing more will be written. What the agent still has to say can be read.
    fn finish(&mut self);

    /// Whether the agent has reset the connection.
    fn was_reset(&self) -> bool;
}

/// Connects to an agent.
pub(crate) fn connect(endpoint: &Endpoint) -> io::Result<Box<dyn Stream>> {
    Ok(match endpoint {
        Endpoint::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Box::new(stream)
        }
        tcp => Box::new(patient(TcpStream::connect(tcp.to_string())?)?),
    })
}

/// Sets the times of a connection that was made elsewhere.
pub(crate) fn patient(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Reads; `Ok(0)` and an error, such as a reset, are the end of the connection.
#[track_caller]
pub(crate) fn read(stream: &mut dyn Stream, buffer: &mut [u8]) -> io::Result<usize> {
    match stream.read(buffer) {
        Err(error) if timed_out(&error) => panic!("the agent says nothing for {PATIENCE:?}"),
        other => other,
    }
}

/// Writes all of it; false when the agent has gone, which reading tells as well.
#[track_caller]
pub(crate) fn write(stream: &mut dyn Stream, bytes: &[u8]) -> bool {
    match stream.write_all(bytes).and_then(|()| stream.flush()) {
        Ok(()) => true,
        Err(error) if timed_out(&error) => panic!("the agent takes nothing for {PATIENCE:?}"),
        Err(_) => false,
    }
}

fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

impl Stream for TcpStream {
    fn finish(&mut self) {
        // Fails where the agent has gone already.
        let _ = self.shutdown(Shutdown::Write);
    }

    fn was_reset(&self) -> bool {
        self.take_error().unwrap().is_some()
    }
}

impl Stream for UnixStream {
    fn finish(&mut self) {
        let _ = self.shutdown(Shutdown::Write);
    }

    fn was_reset(&self) -> bool {
        self.take_error().unwrap().is_some()
    }
}

impl Stream for StreamOwned<ClientConnection, TcpStream> {
    fn finish(&mut self) {
        self.conn.send_close_notify();
        let _ = self.flush();
        Stream::finish(&mut self.sock);
    }

    fn was_reset(&self) -> bool {
        self.sock.was_reset()
    }
}
