//! Findings for people, editors and machines.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::args::Format;
use crate::model::Model;
use crate::rules::{Finding, RULES, title};
use crate::source::{Note, Place};

/// The whole output.
pub(crate) fn report(format: Format, model: &Model, findings: &[Finding]) -> String {
    match format {
        Format::Text => text(model, findings),
        Format::Json => lines(&json(model, findings)),
        Format::Sarif => lines(&sarif(findings)),
        Format::Github => github(&model.notes, findings),
    }
}

fn text(model: &Model, findings: &[Finding]) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    for Finding { rule, place, what, effect, write } in findings {
        let at = at(place);
        let _ = writeln!(text, "{at}: warning[{rule}]: {what}");
        let _ = writeln!(text, "    at run time: {effect}\n    write: {write}");
    }
    for Note { place, text: note } in &model.notes {
        let _ = writeln!(text, "{}: note: not understood: {note}", at(place));
    }
    let (engines, rules) = (model.engines.len(), RULES.len());
    let engines = match engines {
        1 => "1 SPOE filter".to_owned(),
        _ => format!("{engines} SPOE filters"),
    };
    let _ = match findings.len() {
        0 => writeln!(text, "nothing found: {engines}, {rules} rules"),
        1 => writeln!(text, "1 finding: {engines}, {rules} rules; `--explain RULE` says more"),
        many => {
            writeln!(text, "{many} findings: {engines}, {rules} rules; `--explain RULE` says more")
        }
    };
    text
}

fn at(place: &Place) -> String {
    format!("{}:{}:{}", place.file, place.line, place.column)
}

fn json(model: &Model, findings: &[Finding]) -> Value {
    let at =
        |place: &Place| json!({"file": &*place.file, "line": place.line, "column": place.column});
    let findings = findings.iter().map(|finding| {
        json!({
            "rule": finding.rule,
            "place": at(&finding.place),
            "what": finding.what,
            "effect": finding.effect,
            "write": finding.write,
        })
    });
    let notes = model.notes.iter().map(|note| json!({"place": at(&note.place), "text": note.text}));
    json!({
        "filters": model.engines.len(),
        "findings": findings.collect::<Vec<_>>(),
        "not_understood": notes.collect::<Vec<_>>(),
    })
}

fn sarif(findings: &[Finding]) -> Value {
    let rules = RULES.iter().map(|rule| {
        json!({
            "id": rule.id,
            "shortDescription": {"text": title(rule.id)},
            "defaultConfiguration": {"level": "warning"},
        })
    });
    let results = findings.iter().map(|Finding { rule, place, what, effect, write }| {
        json!({
            "ruleId": rule,
            "level": "warning",
            "message": {"text": format!("{what}. At run time: {effect}. Write: {write}")},
            "locations": [{"physicalLocation": {
                "artifactLocation": {"uri": &*place.file},
                "region": {"startLine": place.line, "startColumn": place.column},
            }}],
        })
    });
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "spop-lint",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.collect::<Vec<_>>(),
            }},
            "results": results.collect::<Vec<_>>(),
        }],
    })
}

fn lines(value: &Value) -> String {
    format!("{value:#}\n")
}

fn github(notes: &[Note], findings: &[Finding]) -> String {
    let command = |level: &str, place: &Place, title: &str, message: &str| {
        format!(
            "::{level} file={},line={},col={},title={}::{}\n",
            property(&place.file),
            place.line,
            place.column,
            property(title),
            data(message)
        )
    };
    let findings = findings.iter().map(|Finding { rule, place, what, effect, write }| {
        command("warning", place, rule, &format!("{what}\nat run time: {effect}\nwrite: {write}"))
    });
    let notes =
        notes.iter().map(|note| command("notice", &note.place, "not understood", &note.text));
    findings.chain(notes).collect()
}

/// A message of a workflow command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// The value of a property of a workflow command.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding() -> Finding {
        let place = Place { file: "a,b.cfg".into(), line: 3, column: 5, conditional: false };
        let own = |text: &str| text.to_owned();
        Finding { rule: "L05", place, what: own("100 % \"x\""), effect: own("y"), write: own("z") }
    }

    #[test]
    fn annotations_are_escaped() {
        assert_eq!(
            github(&[], &[finding()]),
            "::warning file=a%2Cb.cfg,line=3,col=5,title=L05::100 %25 \"x\"%0Aat run time: y%0Awrite: z\n"
        );
    }

    #[test]
    fn sarif_names_rule_and_place() {
        let log = sarif(&[finding()]);
        let result = &log["runs"][0]["results"][0];
        assert_eq!(result["ruleId"], "L05");
        let region = &result["locations"][0]["physicalLocation"]["region"];
        assert_eq!((&region["startLine"], &region["startColumn"]), (&json!(3), &json!(5)));
        assert_eq!(
            log["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap().len(),
            RULES.len()
        );
    }
}
