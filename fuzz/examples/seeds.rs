//! Writes the seeds: `cargo run --example seeds`, below `corpus/`, a folder for each target.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (target, _) in spop_fuzz::TARGETS {
        let count = spop_fuzz::seeds::write(target, &corpus.join(target))?;
        println!("{target}: {count} seeds");
    }
    Ok(())
}
