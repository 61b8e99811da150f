//! What a file is, and how it is read.

use std::fs::File;
use std::io::{self, Read, Write};

use crate::args::{Args, Format};
use crate::connections::Show;
use crate::hex_dump;
use crate::network::{self, Connections};
use crate::show::{Limits, Printer, Seen, Stream};

/// Shows a file. Whether all of it was right.
pub(crate) fn run<W: Write>(args: &Args, printer: &mut Printer<W>) -> io::Result<bool> {
    let file = args.file.as_path();
    let source = if file.as_os_str() == "-" {
        show(args, io::stdin(), printer)
    } else {
        File::open(file).and_then(|file| show(args, file, printer))
    };
    source.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => error,
        kind => io::Error::new(kind, format!("{}: {error}", file.display())),
    })
}

/// Shows what can be read from `source`.
pub(crate) fn show<W: Write>(
    args: &Args,
    mut source: impl Read + Send,
    printer: &mut Printer<W>,
) -> io::Result<bool> {
    let mut first = Vec::new();
    // More is not needed to know pcap from bytes, and bytes from text.
    source.by_ref().take(4).read_to_end(&mut first)?;
    let format = match args.format {
        Format::Auto => guess(&first),
        said => said,
    };
    let mut source = io::Cursor::new(first).chain(source);
    match format {
        Format::Pcap => {
            let mut connections = Connections::new(args.port);
            network::read(source, &mut connections, &mut Show::new(printer))?;
        }
        Format::Hex => {
            let mut text = Vec::new();
            source.read_to_end(&mut text)?;
            text_or_raw(args, &text, printer)?;
        }
        Format::Raw | Format::Auto => raw(args, source, printer)?,
    }
    printer.summary()
}

/// By the first four bytes. A raw stream begins with the length of a frame: a zero.
fn guess(first: &[u8]) -> Format {
    match first {
        magic if network::is_capture(magic) => Format::Pcap,
        text if !text.is_empty()
            && text.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) =>
        {
            Format::Hex
        }
        _ => Format::Raw,
    }
}

/// Text that is no hex dump may be what something else has written to the port.
fn text_or_raw<W: Write>(args: &Args, text: &[u8], printer: &mut Printer<W>) -> io::Result<()> {
    match hex_dump::parse(text) {
        Ok(hex_dump::Dump::Stream(bytes)) => raw(args, bytes.as_slice(), printer),
        Ok(hex_dump::Dump::Packets(packets)) => {
            let mut connections = Connections::new(args.port);
            let mut show = Show::new(printer);
            for segment in packets.iter().filter_map(hex_dump::Captured::segment) {
                connections.segment(&segment, &mut show)?;
            }
            connections.end(&mut show)
        }
        Err(_) if args.format == Format::Auto => raw(args, text, printer),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

fn raw<W: Write>(args: &Args, mut source: impl Read, printer: &mut Printer<W>) -> io::Result<()> {
    let mut stream = Stream::new(args.side());
    let mut limits = Limits::default();
    let mut buffer = vec![0; 64 * 1024];
    let mut done = Ok(());
    loop {
        let read = match source.read(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let mut print = |seen: Seen| {
            if done.is_ok() {
                done = printer.frame(None, &seen);
            }
        };
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            stream.end(&mut print);
            break;
        };
        stream.receive(bytes, None, &mut limits, &mut print);
        done?;
        // Standard input may be a pipe from something that lives.
        printer.flush()?;
        done = Ok(());
    }
    done?;
    if let Some(((stream_id, frame_id), bytes)) = stream.unfinished() {
        printer.event(
            None,
            &format!(
                "the payload of stream-id {stream_id} frame-id {frame_id} is not finished: {bytes} bytes of it came"
            ),
        )?;
    }
    Ok(())
}
