//! Running a tool.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

pub(crate) const CHECK: &str = env!("CARGO_BIN_EXE_spop-check");
pub(crate) const SEND: &str = env!("CARGO_BIN_EXE_spop-send");

/// What a tool did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Did {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Did {
    /// Fails unless it was that: the exit status, and all that was printed on the one or the other.
    #[track_caller]
    pub(crate) fn assert(&self, exit: i32, stdout: &str, stderr: &str) {
        assert_eq!(self.stderr, stderr, "{self:?}");
        assert_eq!(self.stdout, stdout, "{self:?}");
        assert_eq!(self.exit, exit, "{self:?}");
    }

    /// The same with another text in place of one that differs from run to run.
    pub(crate) fn with(self, from: &str, to: &str) -> Self {
        let with = |text: String| text.replace(from, to);
        Self { stdout: with(self.stdout), stderr: with(self.stderr), ..self }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs a tool; of the times it prints only `T ms` is left. Unless a test is about time there is
/// plenty of it, for machines that are busy.
pub(crate) fn run(program: &str, words: &[&str]) -> Did {
    run_with_input(program, words, b"")
}

/// The same with that on its standard input.
pub(crate) fn run_with_input(program: &str, words: &[&str], input: &[u8]) -> Did {
    let patience: &[_] = if words.contains(&"--timeout") { &[] } else { &["--timeout", "60"] };
    finish(Command::new(program).args(words).args(patience), input)
}

/// Runs a command to its end.
pub(crate) fn finish(command: &mut Command, input: &[u8]) -> Did {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A tool that does not read it may be gone by now.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| without_times(&String::from_utf8(bytes).unwrap());
    Did {
        exit: output.status.code().unwrap(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// `0.31 ms` becomes `T ms`.
pub(crate) fn without_times(text: &str) -> String {
    let mut pieces = text.split(" ms");
    let mut result = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let number = |c: char| c.is_ascii_digit() || c == '.';
        let kept = result.trim_end_matches(number).len();
        if kept < result.len() {
            result.truncate(kept);
            result.push('T');
        }
        result.push_str(" ms");
        result.push_str(piece);
    }
    result
}

/// A folder that goes with the test.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("spop-tools-{}-{number}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file with that in it, as a word for a command line.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        word(&path)
    }

    /// The endpoint of a socket in it.
    pub(crate) fn endpoint(&self, name: &str) -> String {
        format!("unix:{}", word(&self.path(name)))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A test that fails leaves what it had.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn word(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
