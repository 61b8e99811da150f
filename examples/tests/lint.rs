//! `spop-lint` as a program: what it takes, what it says and how it ends, and that it is silent about
//! configurations in which nothing is wrong. That its findings are true is shown with a real HAProxy,
//! by the cases `lint_…` of the end-to-end tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn package(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What it prints and its status.
#[track_caller]
fn lint(words: &[&str]) -> (String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spop-lint"));
    let output = command.args(words).env("SET_IN_TEST", "127.0.0.1:1").output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).unwrap(), output.status.code().unwrap())
}

#[track_caller]
fn assert_clean(words: &[&str]) {
    let (text, status) = lint(words);
    assert!(text.contains("nothing found: ") && status == 0, "{words:?}: {status}\n{text}");
    // No configuration here that it did not look into.
    assert!(!text.contains("nothing found: 0 SPOE"), "{words:?}: {text}");
}

/// A directory that is gone when this is dropped.
struct Files(PathBuf);

impl Files {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("lint-{name}"));
        fs::create_dir_all(&directory).unwrap();
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
        Self(directory)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Every release, and none.
const RELEASES: [&[&str]; 5] = [
    &[],
    &["--haproxy", "2.6"],
    &["--haproxy", "3.0"],
    &["--haproxy", "3.2"],
    &["--haproxy", "3.4"],
];

/// All files of that name below a directory.
fn find(below: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, name, found);
        } else if path.file_name().is_some_and(|file| file == name) {
            found.push(path);
        }
    }
}

/// The configurations of the examples, and a set of well-formed ones in many styles.
#[test]
fn shipped_and_well_formed_files_are_clean() {
    let mut found = Vec::new();
    find(&package(""), "haproxy.cfg", &mut found);
    assert!(found.len() >= 15, "{found:?}");
    for config in found {
        for release in RELEASES {
            assert_clean(&[release, &[config.to_str().unwrap()]].concat());
        }
    }
    let directory = package("spop-lint/tests/directory").display().to_string();
    assert_clean(&["-C", &directory, &format!("{directory}/conf.d")]);
}

/// What stands between two fences of a page, the info string first.
fn blocks(page: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(package(page)).unwrap();
    let blocks = text.split("\n```").skip(1).step_by(2);
    blocks.map(|block| block.split_once('\n').map(|(i, t)| (i.into(), t.into())).unwrap()).collect()
}

/// The complete configurations that pages show.
#[test]
fn configurations_of_pages_are_clean() {
    let mut seen = 0;
    for page in [
        "../README.md",
        "haproxy-versions.md",
        "bodies.md",
        "guide/haproxy-for-rust-people.md",
        "guide/rust-for-haproxy-people.md",
    ] {
        let blocks = blocks(page);
        let whole = |info: &String, first: &str| {
            let found = blocks.iter().find(|(i, text)| i == info && text.starts_with(first));
            found.map(|(_, text)| text.clone())
        };
        for (info, _) in &blocks {
            let files = whole(info, "# haproxy.cfg\n").zip(whole(info, "# spoe.conf\n"));
            let Some((config, spoe)) = files else { continue };
            seen += 1;
            let name = format!("page-{seen}");
            let files = Files::new(&name, &[("haproxy.cfg", &config), ("spoe.conf", &spoe)]);
            assert_clean(&[&files.path("haproxy.cfg")]);
        }
    }
    assert!(seen >= 7, "{seen}");
}

/// What the page of `spop-lint` shows is what it says of README's configuration with that mistake.
#[test]
fn output_of_the_page() {
    let blocks = blocks("../README.md");
    let text =
        |first: &str| blocks.iter().find(|(_, text)| text.starts_with(first)).unwrap().1.clone();
    let right = "var(txn.iprep.ip_score) -m int";
    let config = text("# haproxy.cfg\n");
    assert_eq!(config.matches(right).count(), 1);
    let config = config.replace(right, "var(txn.ip_rep.ip_score) -m int");
    let files =
        Files::new("page", &[("haproxy.cfg", &config), ("spoe.conf", &text("# spoe.conf\n"))]);
    let said = lint(&[&files.path("haproxy.cfg")]).0.replace(&files.path(""), "");
    let page = fs::read_to_string(package("spop-lint/README.md")).unwrap();
    let shown = said.split("1 finding:").next().unwrap();
    assert!(page.contains(&format!("```text\n{shown}```")), "{said}");
}

const CONFIG: &str = r#"defaults
    mode http
frontend web
    bind "${SET_IN_TEST}"
    filter spoe engine e config spoe.conf
    http-request deny if { var(txn.e.block) -m bool }
    http-request deny deny_status 503 if { var(txn.e.error) -m found }
backend agents
    option spop-check
    server a "${UNSET_IN_TEST}" check
"#;
const SPOE: &str = "[e]
spoe-agent e
    messages m
    use-backend agents
    option set-on-error error
spoe-message m
    args id=unique-id
    event on-frontend-http-request
";

#[test]
fn places_status_and_notes() {
    let files = Files::new("places", &[("haproxy.cfg", CONFIG), ("spoe.conf", SPOE)]);
    let config = files.path("haproxy.cfg");
    let (text, status) = lint(&[&config]);
    assert_eq!(status, 1, "{text}");
    let spoe = files.path("spoe.conf");
    let format = "write: unique-id-format %[uuid()], in frontend web or its defaults";
    for want in [
        &format!("{spoe}:7:10: warning[L05]: argument id=unique-id: frontend web has no"),
        "    at run time: the agent gets NULL\n",
        format,
        &format!(
            "{config}:10:14: note: not understood: environment variable not set here: ${{UNSET"
        ),
        "1 finding: 1 SPOE filter, ",
    ] {
        assert!(text.contains(want), "no {want:?} in\n{text}");
    }
}

/// What stands within `.if` may satisfy a rule, and is never found wrong.
#[test]
fn conditional_lines_are_not_judged() {
    let id = "    .if defined(X)\n    unique-id-format %[uuid()]\n    .endif\n";
    let config = CONFIG.replace("    filter", &format!("{id}    filter"));
    let spoe =
        SPOE.replace("    args", "    .if defined(X)\n    args b=req.body\n    .endif\n    args");
    let files = Files::new("conditional", &[("haproxy.cfg", &config), ("spoe.conf", &spoe)]);
    let (text, status) = lint(&[&files.path("haproxy.cfg")]);
    assert_eq!(status, 0, "{text}");
    assert_eq!(text.matches("`.if defined(X)` is not evaluated").count(), 2, "{text}");

    let taken_back = "    .if defined(X)\n    no option spop-check\n    .endif\n    server a";
    let rules = rules("taken-back", "log global", &[("    server a", taken_back)]);
    assert!(rules.is_empty(), "{rules:?}");
}

/// What depends on an environment variable that is not set here is not judged either.
#[test]
fn unknown_words_are_not_judged() {
    let prefix = "    option var-prefix \"${UNSET_IN_TEST}\"\n    option set-on-error";
    let spoe = SPOE.replace("    option set-on-error", prefix).replace("id=unique-id", "ip=src");
    let files = Files::new("unknown", &[("haproxy.cfg", CONFIG), ("spoe.conf", &spoe)]);
    let (text, status) = lint(&[&files.path("haproxy.cfg")]);
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("spoe.conf:5:23: note: not understood: "), "{text}");

    let config = CONFIG.replace("config spoe.conf", "config \"${UNSET_IN_TEST}\"");
    let files = Files::new("unknown-file", &[("haproxy.cfg", &config)]);
    let (text, status) = lint(&[&files.path("haproxy.cfg")]);
    assert!(text.contains("nothing found: 0 SPOE filters") && status == 0, "{text}");
}

/// The rules of a configuration with one more line in `global`, and others instead of some words.
fn rules(name: &str, global: &str, words: &[(&str, &str)]) -> Vec<String> {
    let id = "    filter";
    let mut config = format!("global\n    {global}\n{CONFIG}");
    config = config.replace(id, &format!("    unique-id-format x\n{id}"));
    for (old, new) in words {
        assert_eq!(config.matches(old).count(), 1, "{old}");
        config = config.replace(old, new);
    }
    let files = Files::new(name, &[("haproxy.cfg", &config), ("spoe.conf", SPOE)]);
    let (text, _) = lint(&["--json", &files.path("haproxy.cfg")]);
    let json: Value = serde_json::from_str(&text).unwrap();
    let findings = json["findings"].as_array().unwrap().iter();
    findings.map(|finding| finding["rule"].as_str().unwrap().to_owned()).collect()
}

/// Which paths are outside: those that begin with the new root, and those of the usual places.
#[test]
fn sockets_and_chroot() {
    let address = "\"${UNSET_IN_TEST}\"";
    for (path, found) in [
        ("/jail/x.sock", true),
        ("unix@/jail/x.sock", true),
        ("/run/x.sock", true),
        ("unix@/var/run/x/x.sock", true),
        ("/x.sock", false),
        ("/jailed/x.sock", false),
        ("abns@/jail/x", false),
        ("127.0.0.1:1", false),
    ] {
        let want: &[&str] = if found { &["L14"] } else { &[] };
        assert_eq!(rules("chroot", "chroot /jail", &[(address, path)]), want, "{path}");
        assert!(rules("chroot", "chroot /", &[(address, path)]).is_empty(), "{path}");
    }
}

/// Lua may set any variable; a prefix that is an agent's but for a sign is a mistake all the same.
#[test]
fn variables_that_lua_may_set() {
    let rule = "{ var(txn.e.block) -m bool }";
    for (read, with_lua) in
        [("var(txn.lua.x)", false), ("var(txn.E.x)", true), ("var(txn.x)", false)]
    {
        let words = [(rule, format!("{{ {read} -m bool }}"))];
        let words = words.each_ref().map(|(old, new)| (*old, new.as_str()));
        assert_eq!(rules("lua", "log stdout format raw local0", &words), ["L08"], "{read}");
        let want: &[&str] = if with_lua { &["L08"] } else { &[] };
        assert_eq!(rules("lua", "lua-load x.lua", &words), want, "{read}");
    }
}

/// Sections and defaults go on from file to file.
#[test]
fn several_files_are_one_configuration() {
    let (defaults, rest) = CONFIG.split_once("frontend").unwrap();
    let defaults = format!("{defaults}    unique-id-format %[uuid()]\n");
    let rest = format!("frontend{rest}");
    let parts = [("1.cfg", defaults.as_str()), ("2.cfg", &rest), ("spoe.conf", SPOE)];
    let files = Files::new("several", &parts);
    assert_clean(&[&files.path("1.cfg"), &files.path("2.cfg")]);
    assert_clean(&[files.0.to_str().unwrap()]);
    assert_eq!(lint(&[&files.path("2.cfg")]).1, 1, "without the defaults");
}

#[test]
fn machine_formats() {
    let files = Files::new("formats", &[("haproxy.cfg", CONFIG), ("spoe.conf", SPOE)]);
    let config = files.path("haproxy.cfg");
    let (text, status) = lint(&["--json", &config]);
    let json: Value = serde_json::from_str(&text).unwrap();
    let finding = &json["findings"][0];
    assert_eq!((&finding["rule"], &finding["place"]["line"]), (&"L05".into(), &7.into()));
    assert_eq!((json["findings"].as_array().unwrap().len(), status), (1, 1));
    assert_eq!(json["not_understood"][0]["place"]["line"], 10);

    let (text, status) = lint(&["--format", "sarif", &config]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["runs"][0]["results"][0]["ruleId"], status), (&"L05".into(), 1));

    let (text, status) = lint(&["--format", "github", &config]);
    assert!(text.starts_with("::warning file="), "{text}");
    assert!(text.contains(",line=7,col=10,title=L05::argument id=unique-id"), "{text}");
    assert_eq!((text.lines().count(), status), (2, 1), "{text}");
}

#[test]
fn wrong_usage_and_unreadable_files() {
    let files = Files::new("unreadable", &[("haproxy.cfg", CONFIG), ("odd.cfg", "it's \\x\n")]);
    for words in [
        &[][..],
        &["/nonexistent/haproxy.cfg"],
        &[&files.path("haproxy.cfg")], // spoe.conf is missing
        &["--haproxy", "1.8", "x"],
        &["--explain", "L99"],
    ] {
        let (text, status) = lint(words);
        assert_eq!(status, 2, "{words:?}: {text}");
        assert!(!text.is_empty());
    }
    let (text, status) = lint(&[&files.path("odd.cfg")]);
    assert!(text.contains("a quote is not closed") && status == 0, "{text}");
}

#[test]
fn explanations_are_those_of_the_page() {
    let page = fs::read_to_string(package("spop-lint/README.md")).unwrap();
    for number in 1..=18 {
        let (text, status) = lint(&["--explain", &format!("l{number:02}")]);
        assert_eq!(status, 0, "{text}");
        assert!(
            text.starts_with(&format!("## L{number:02}: ")) && page.contains(text.trim()),
            "{text}"
        );
    }
}
