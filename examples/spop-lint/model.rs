//! What a configuration says about SPOE, as rules want to see it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use spop_proto::Description;

use crate::expression::{Condition, Named, Term, all_variables};
use crate::grammar::{Environment, Word};
use crate::source::{Line, Note, Place, Section, Source};

/// A release of HAProxy.
pub(crate) type Version = (u32, u32);

/// A whole configuration.
#[derive(Debug)]
pub(crate) struct Model {
    /// The lines of all `global` sections.
    pub(crate) global: Vec<Line>,
    /// Frontends, backends and listens in their order.
    pub(crate) proxies: Vec<Proxy>,
    /// One for each `filter spoe` line.
    pub(crate) engines: Vec<Engine>,
    /// The release it is for; none: any.
    pub(crate) version: Option<Version>,
    /// What the agent takes, if that is known.
    pub(crate) expected: Option<Description>,
    /// Some SPOE file is not known: there may be agents that are not here.
    pub(crate) incomplete: bool,
    /// What was not understood.
    pub(crate) notes: Vec<Note>,
}

impl Model {
    /// Reads configuration files, and the SPOE files that they name: those are looked for below
    /// `directory` if that is given, else where HAProxy would, else beside the file that names them.
    pub(crate) fn read(
        files: &[PathBuf],
        directory: Option<&Path>,
        version: Option<Version>,
    ) -> io::Result<Self> {
        let (mut source, mut environment) = (Source::default(), Environment::of_process());
        for file in files {
            source.add(&file.to_string_lossy(), &text(file)?, &mut environment);
        }
        let mut model = Self::new(&source, version);
        let (mut engines, mut read) = (Vec::new(), HashMap::<PathBuf, Vec<Section>>::new());
        for (index, proxy) in model.proxies.iter().enumerate() {
            let filters = proxy.lines.iter().filter(|line| line.starts(&["filter", "spoe"]));
            for line in filters {
                let filter = Filter::new(line).filter(|filter| !filter.config.unknown);
                let Some(filter) = filter else {
                    model.incomplete = true; // what is unknown has its note already
                    continue;
                };
                let path = find(&filter.config.text, directory, &model.global, line);
                if !read.contains_key(&path) {
                    let text = text(&path)?;
                    let mut spoe = Source::default();
                    spoe.add(&path.to_string_lossy(), &text, &mut environment);
                    model.notes.append(&mut spoe.notes);
                    read.insert(path.clone(), spoe.sections);
                }
                let sections = read.get(&path).map(Vec::as_slice).unwrap_or_default();
                let agents = sections.iter().filter(|s| s.scope == filter.engine);
                if !agents.clone().any(|section| section.kind() == "spoe-agent") {
                    let scope = filter.engine.as_deref().unwrap_or("(none)");
                    let text = format!("{} has no agent in scope [{scope}]", path.display());
                    model.notes.push(Note { place: line.place.clone(), text });
                    model.incomplete = true;
                    continue;
                }
                engines.push(Engine::new(index, &filter, sections));
            }
        }
        model.engines = engines;
        let unknown = model.agents().any(|(_, agent)| agent.unknown_prefix());
        model.incomplete |= unknown;
        Ok(model)
    }

    fn new(source: &Source, version: Option<Version>) -> Self {
        let (mut global, mut proxies) = (Vec::new(), Vec::new());
        let mut defaults: Vec<(&str, Vec<Line>)> = Vec::new();
        for section in &source.sections {
            let (kind, from) = (section.kind(), section.head.from(1));
            let from = from.iter().skip_while(|word| word.text != "from").nth(1);
            let inherited = match from {
                Some(from) => defaults.iter().rfind(|(name, _)| *name == from.text),
                None if kind == "defaults" => None,
                None => defaults.last(),
            };
            let mut lines = inherited.map(|(_, lines)| lines.clone()).unwrap_or_default();
            lines.extend(section.lines.iter().cloned());
            match kind {
                "global" => global.extend(section.lines.iter().cloned()),
                "defaults" => defaults.push((section.name(), lines)),
                "frontend" | "backend" | "listen" => proxies.push(Proxy::new(section, lines)),
                _ => {}
            }
        }
        Self {
            global,
            proxies,
            engines: Vec::new(),
            version,
            expected: None,
            incomplete: false,
            notes: source.notes.clone(),
        }
    }

    /// Whether the configuration may be run by a release from `first` on.
    pub(crate) fn may_be_from(&self, first: Version) -> bool {
        self.version.is_none_or(|version| version >= first)
    }

    /// Each agent with its engine.
    pub(crate) fn agents(&self) -> impl Iterator<Item = (&Engine, &Agent)> {
        self.engines
            .iter()
            .flat_map(|engine| engine.agents.iter().map(move |agent| (engine, agent)))
    }

    /// The proxy of an engine.
    pub(crate) fn proxy_of(&self, engine: &Engine) -> Option<&Proxy> {
        self.proxies.get(engine.proxy)
    }

    /// The backend in which an agent has its servers.
    pub(crate) fn backend_of(&self, agent: &Agent) -> Option<&Proxy> {
        let name = agent.value(&["use-backend"])?;
        self.proxies.iter().find(|proxy| proxy.kind != "frontend" && proxy.name == name.text)
    }

    /// The backends of agents, each once, with its agents.
    pub(crate) fn backends(&self) -> Vec<(&Proxy, Vec<(&Engine, &Agent)>)> {
        let mut found: Vec<(&Proxy, Vec<(&Engine, &Agent)>)> = Vec::new();
        for (engine, agent) in self.agents() {
            let Some(backend) = self.backend_of(agent) else { continue };
            match found.iter_mut().find(|(proxy, _)| proxy.index() == backend.index()) {
                Some((_, agents)) => agents.push((engine, agent)),
                None => found.push((backend, vec![(engine, agent)])),
            }
        }
        found
    }

    /// Whether something that this program does not read may set variables: Lua, or another filter.
    pub(crate) fn has_other_setters(&self) -> bool {
        let filters = self.proxies.iter().flat_map(|proxy| &proxy.lines);
        let mut filters = filters.filter(|line| line.word(0) == "filter");
        self.global.iter().any(|line| line.word(0).starts_with("lua-"))
            || filters.any(|line| line.word(1).starts_with("opent") || line.word(1) == "otel")
    }

    /// Every variable that the configuration names, with its place and the proxy's number.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&Proxy, Place, Named)> {
        self.proxies.iter().flat_map(|proxy| {
            proxy.lines.iter().flat_map(move |line| {
                line.words.iter().flat_map(move |word| {
                    let found = all_variables(std::slice::from_ref(word));
                    found.into_iter().map(move |named| (proxy, line.at(word), named))
                })
            })
        })
    }

    /// Whether some line sets that variable, in haproxy.cfg or within the `args` of a message.
    pub(crate) fn sets(&self, name: &str) -> bool {
        let args = self.engines.iter().flat_map(|e| &e.messages).flat_map(|m| &m.args);
        self.variables().any(|(_, _, named)| named.set && named.name == name)
            || args
                .flat_map(|arg| crate::expression::variables(&arg.expression))
                .any(|n| n.set && n.name == name)
            || self
                .global
                .iter()
                .any(|line| line.word(0).starts_with("set-var") && line.word(1) == name)
    }
}

fn text(path: &Path) -> io::Result<String> {
    let wrong =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    // Configurations may hold any bytes; what is asked about here is ASCII.
    Ok(String::from_utf8_lossy(&fs::read(path).map_err(wrong)?).into_owned())
}

/// Where an SPOE file is.
fn find(config: &str, directory: Option<&Path>, global: &[Line], filter: &Line) -> PathBuf {
    if let Some(directory) = directory {
        return directory.join(config.trim_start_matches('/'));
    }
    let folder = Path::new(&*filter.place.file).parent().unwrap_or_else(|| Path::new(""));
    let base = global.iter().rfind(|line| line.word(0) == "default-path");
    match base.map_or(("current", ""), |line| (line.word(1), line.word(2))) {
        ("parent", _) => folder.join("..").join(config),
        ("origin", origin) => Path::new(origin).join(config),
        ("current", _) if Path::new(config).exists() => config.into(),
        _ => folder.join(config),
    }
}

/// A frontend, backend or listen with what it inherits from its `defaults`.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// `frontend`, `backend` or `listen`.
    pub(crate) kind: String,
    /// Its name.
    pub(crate) name: String,
    /// Where it begins.
    pub(crate) place: Place,
    /// Inherited lines first.
    pub(crate) lines: Vec<Line>,
    /// Its rules, in the order of the lines.
    pub(crate) rules: Vec<Rule>,
}

impl Proxy {
    fn new(section: &Section, lines: Vec<Line>) -> Self {
        let mut acls = HashMap::<&str, Vec<Word>>::new();
        for line in lines.iter().filter(|line| line.word(0) == "acl") {
            acls.entry(line.word(1)).or_default().extend(line.from(2).iter().cloned());
        }
        let rules = lines.iter().filter_map(|line| Rule::new(line, &acls)).collect();
        Self {
            kind: section.kind().to_owned(),
            name: section.name().to_owned(),
            place: section.head.place.clone(),
            lines,
            rules,
        }
    }

    fn index(&self) -> &Place {
        &self.place
    }

    /// The last line with these words, which is the one that counts.
    pub(crate) fn last(&self, words: &[&str]) -> Option<&Line> {
        self.lines.iter().rfind(|line| line.starts(words))
    }

    /// Whether an option is on. `no option` takes it back, unless it is within `.if`.
    pub(crate) fn option(&self, name: &str) -> bool {
        let is = |line: &&Line| {
            line.starts(&["option", name])
                || (line.starts(&["no", "option", name]) && !line.place.conditional)
        };
        self.lines.iter().rfind(is).is_some_and(|line| line.word(0) == "option")
    }

    /// Whether requests come in here.
    pub(crate) fn takes_requests(&self) -> bool {
        self.kind != "backend"
    }
}

/// A rule: `http-request`, `tcp-request content` …
#[derive(Debug)]
pub(crate) struct Rule {
    /// Where.
    pub(crate) place: Place,
    /// `http-request`, `tcp-request content` …
    pub(crate) set: String,
    /// `deny`, `set-header`; without what is in parentheses.
    pub(crate) action: String,
    /// The action and all that belongs to it, without the condition.
    pub(crate) words: Vec<Word>,
    /// Its condition. Named ACLs are replaced by what they are.
    pub(crate) condition: Condition,
}

impl Rule {
    fn new(line: &Line, acls: &HashMap<&str, Vec<Word>>) -> Option<Self> {
        let (set, skip) = match line.word(0) {
            set @ ("http-request" | "http-response" | "http-after-response") => (set.to_owned(), 1),
            set @ ("tcp-request" | "tcp-response") => (format!("{set} {}", line.word(1)), 2),
            _ => return None,
        };
        let (words, mut condition) = Condition::split(line.from(skip));
        for term in &mut condition.0 {
            let acl = term.words.first().filter(|_| term.words.len() == 1);
            if let Some(acl) = acl.and_then(|acl| acls.get(acl.text.as_str())) {
                term.words = acl.clone();
            }
        }
        let action = words.first()?.text.split('(').next().unwrap_or_default().to_owned();
        Some(Self { place: line.place.clone(), set, action, words: words.to_vec(), condition })
    }

    /// Whether it keeps a request from being served.
    pub(crate) fn stops(&self) -> bool {
        let word = |index: usize| self.words.get(index).map_or("", |word| &word.text);
        match self.action.as_str() {
            "deny" | "reject" | "tarpit" | "silent-drop" | "auth" => true,
            "return" => word(1) == "status" && word(2).starts_with(['4', '5']),
            _ => false,
        }
    }

    /// What the terms of its condition read.
    pub(crate) fn reads(&self) -> impl Iterator<Item = (&Term, Named)> {
        self.condition.0.iter().flat_map(|term| {
            let found = all_variables(&term.words).into_iter().filter(|named| !named.set);
            found.map(move |named| (term, named))
        })
    }
}

/// What a `filter spoe` line says.
struct Filter {
    engine: Option<String>,
    config: Word,
}

impl Filter {
    fn new(line: &Line) -> Option<Self> {
        let behind =
            |keyword: &str| line.from(2).iter().skip_while(|word| word.text != keyword).nth(1);
        let config = behind("config")?.clone();
        Some(Self { engine: behind("engine").map(|word| word.text.clone()), config })
    }
}

/// A `filter spoe` line with the part of the SPOE file that it takes.
#[derive(Debug)]
pub(crate) struct Engine {
    /// The number of its proxy.
    pub(crate) proxy: usize,
    /// Its name, empty without one.
    pub(crate) name: String,
    /// HAProxy takes one agent; more than one is refused.
    pub(crate) agents: Vec<Agent>,
    /// All messages of the scope, listed or not.
    pub(crate) messages: Vec<Message>,
    /// All groups of the scope.
    pub(crate) groups: Vec<Group>,
}

impl Engine {
    fn new(proxy: usize, filter: &Filter, sections: &[Section]) -> Self {
        let name = filter.engine.clone().unwrap_or_default();
        let mut engine =
            Self { proxy, name, agents: Vec::new(), messages: Vec::new(), groups: Vec::new() };
        for section in sections.iter().filter(|section| section.scope == filter.engine) {
            let (name, place) = (section.name().to_owned(), section.head.place.clone());
            let lines = section.lines.clone();
            match section.kind() {
                "spoe-agent" => engine.agents.push(Agent { name, place, lines }),
                "spoe-message" => engine.messages.push(Message::new(name, place, &lines)),
                "spoe-group" => {
                    let messages = listed(&lines, "messages").into_iter().map(|(_, name)| name);
                    engine.groups.push(Group { name, place, messages: messages.collect() });
                }
                _ => {}
            }
        }
        engine
    }

    /// The messages that an event sends.
    pub(crate) fn of_events(&self) -> impl Iterator<Item = (&Message, &Event)> {
        self.messages.iter().filter_map(|message| {
            let listed = |agent: &Agent| {
                agent.list("messages").iter().any(|(_, name)| *name == message.name)
            };
            let event = message.events.last()?;
            self.agents.iter().any(listed).then_some((message, event))
        })
    }

    /// The groups that rules send, each with such a rule and its number in its proxy.
    pub(crate) fn sent<'a>(
        &'a self,
        model: &'a Model,
    ) -> impl Iterator<Item = (&'a Group, usize, &'a Rule)> {
        let rules = model.proxy_of(self).map(|proxy| proxy.rules.as_slice()).unwrap_or_default();
        rules.iter().enumerate().filter_map(move |(index, rule)| {
            let word = |index: usize| rule.words.get(index).map_or("", |word| &word.text);
            if rule.action != "send-spoe-group" || word(1) != self.name {
                return None;
            }
            let group = self.groups.iter().find(|group| group.name == word(2))?;
            Some((group, index, rule))
        })
    }

    /// A message by name.
    pub(crate) fn message(&self, name: &str) -> Option<&Message> {
        self.messages.iter().find(|message| message.name == name)
    }
}

/// The words of lines that list names, and each name's place.
fn listed(lines: &[Line], keyword: &str) -> Vec<(Place, String)> {
    let lines = lines.iter().filter(|line| line.word(0) == keyword);
    lines.flat_map(|line| line.from(1).iter().map(|w| (line.at(w), w.text.clone()))).collect()
}

/// A `spoe-agent` section.
#[derive(Debug)]
pub(crate) struct Agent {
    /// Its name.
    pub(crate) name: String,
    /// Where it begins.
    pub(crate) place: Place,
    lines: Vec<Line>,
}

impl Agent {
    /// The first word behind these ones, of the last such line.
    pub(crate) fn value(&self, words: &[&str]) -> Option<&Word> {
        self.line(words)?.words.get(words.len())
    }

    /// The last line that begins so.
    pub(crate) fn line(&self, words: &[&str]) -> Option<&Line> {
        self.lines.iter().rfind(|line| line.starts(words))
    }

    /// The names behind `messages` or `groups`.
    pub(crate) fn list(&self, keyword: &str) -> Vec<(Place, String)> {
        listed(&self.lines, keyword)
    }

    /// `option var-prefix`, else its name.
    pub(crate) fn prefix(&self) -> &str {
        self.value(&["option", "var-prefix"]).map_or(&self.name, |word| &word.text)
    }

    /// Whether the prefix depends on an environment variable that is not set here.
    pub(crate) fn unknown_prefix(&self) -> bool {
        self.value(&["option", "var-prefix"]).is_some_and(|word| word.unknown)
    }

    /// The variables that HAProxy itself sets, each with the option that says so.
    pub(crate) fn own_variables(&self) -> impl Iterator<Item = (&'static str, &Line, &Word)> {
        let options = ["set-on-error", "set-process-time", "set-total-time"];
        options.into_iter().filter_map(|option| {
            let line = self.line(&["option", option])?;
            Some((option, line, line.words.get(2)?))
        })
    }
}

/// An event of a message.
#[derive(Debug)]
pub(crate) struct Event {
    /// `on-frontend-http-request` …
    pub(crate) name: String,
    /// Where.
    pub(crate) place: Place,
}

/// An argument of a message.
#[derive(Debug)]
pub(crate) struct Argument {
    /// Empty where it has none.
    pub(crate) name: String,
    /// What is fetched.
    pub(crate) expression: String,
    /// Where.
    pub(crate) place: Place,
}

/// A `spoe-message` section.
#[derive(Debug)]
pub(crate) struct Message {
    /// Its name.
    pub(crate) name: String,
    /// Where it begins.
    pub(crate) place: Place,
    /// Its arguments.
    pub(crate) args: Vec<Argument>,
    /// HAProxy keeps the last.
    pub(crate) events: Vec<Event>,
}

impl Message {
    fn new(name: String, place: Place, lines: &[Line]) -> Self {
        let args = lines.iter().filter(|line| line.word(0) == "args");
        let args = args.flat_map(|line| {
            line.from(1).iter().filter(|word| !word.unknown).map(|word| {
                let (name, expression) = match word.text.split_once('=') {
                    // `=` within parentheses belongs to the expression.
                    Some((name, rest)) if !name.contains('(') => (name, rest),
                    _ => ("", word.text.as_str()),
                };
                let (name, expression) = (name.to_owned(), expression.to_owned());
                Argument { name, expression, place: line.at(word) }
            })
        });
        let events = lines.iter().filter(|line| line.word(0) == "event");
        let events =
            events.map(|line| Event { name: line.word(1).to_owned(), place: line.place.clone() });
        Self { name, place, args: args.collect(), events: events.collect() }
    }
}

/// A `spoe-group` section.
#[derive(Debug)]
pub(crate) struct Group {
    /// Its name.
    pub(crate) name: String,
    /// Where it begins.
    pub(crate) place: Place,
    /// The messages it sends.
    pub(crate) messages: Vec<String>,
}
