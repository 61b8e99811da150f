//! The tools' command lines, as the transcripts in `transcripts` and their pages show them: help, wrong
//! usage, and whatever needs nobody at the other end. `TRYCMD=overwrite cargo test --test transcripts`
//! writes them anew.

#[test]
fn transcripts() {
    trycmd::TestCases::new()
        // What help is wrapped at where there is no terminal.
        .env("COLUMNS", "100")
        .case("tests/transcripts/*.trycmd")
        .case("tests/transcripts/*.toml")
        .case("spop-dump/README.md")
        .case("spop-explain/README.md");
}
