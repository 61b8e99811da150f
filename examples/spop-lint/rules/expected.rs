//! What the agent takes, and what it is sent.

use spop_proto::{Declared, Kind};

use crate::expression::last_of_chain;
use crate::model::{Message, Model};

use super::Findings;

/// L19
pub(super) fn argument_not_sent(model: &Model, findings: &mut Findings) {
    let Some(expected) = &model.expected else { return };
    for (name, args) in expected.messages() {
        let messages: Vec<_> =
            model.engines.iter().filter_map(|engine| engine.message(name)).collect();
        for message in &messages {
            for arg in args.iter().filter(|arg| !arg.optional && sent(message, arg).is_none()) {
                let what = format!("message {name}: the agent takes {arg}, and it is not sent");
                let effect = "the agent's handler fails, and the request gets the fallback answer";
                let fetch = arg.fetch.as_deref().unwrap_or("FETCH");
                findings.add(&message.place, what, effect, format!("args {}={fetch}", arg.name));
            }
        }
        if messages.is_empty()
            && let Some((_, agent)) = model.agents().next()
        {
            let what = format!("the agent has a handler for message {name}, and there is none");
            let effect = "that handler is never asked";
            let write = format!("spoe-message {name}, and its name in a messages line");
            findings.add(&agent.place, what, effect, write);
        }
    }
}

/// L20
pub(super) fn argument_of_another_type(model: &Model, findings: &mut Findings) {
    let Some(expected) = &model.expected else { return };
    for (name, args) in expected.messages() {
        for message in model.engines.iter().filter_map(|engine| engine.message(name)) {
            for arg in args {
                let Some(sent) = sent(message, arg) else { continue };
                let Some(gives) = gives(&sent.expression) else { continue };
                if takes(arg.kind, gives) {
                    continue;
                }
                let (kind, expression) = (arg.kind, &sent.expression);
                let what = format!(
                    "argument {}={expression}: {gives}, and the agent takes {kind}",
                    arg.name
                );
                let effect = "the agent's handler fails, and the request gets the fallback answer";
                let write = format!("a sample fetch or a converter that gives {kind}");
                findings.add(&sent.place, what, effect, write);
            }
        }
    }
}

fn sent<'m>(message: &'m Message, arg: &Declared) -> Option<&'m crate::model::Argument> {
    message.args.iter().find(|sent| *sent.name == *arg.name)
}

/// Whether a handler that declares `kind` can take what `gives` that kind.
fn takes(kind: Kind, gives: Kind) -> bool {
    match (kind, gives) {
        (Kind::Ipv4 | Kind::Ipv6 | Kind::Address, Kind::Address) => true,
        // A type may read itself from an address's text.
        (Kind::Text | Kind::OneOf(_), Kind::Text | Kind::Address) => true,
        (Kind::Bytes, Kind::Text | Kind::Bytes) => true,
        (Kind::Any, _) => true,
        (kind, gives) => kind == gives,
    }
}

/// What an expression gives, as far as its last part is one of these; nothing is guessed of others.
/// (HAProxy's configuration manual, "Fetching data samples" and "Converters".)
fn gives(expression: &str) -> Option<Kind> {
    const ADDRESS: &[&str] =
        &["src", "dst", "fc_src", "fc_dst", "bc_src", "bc_dst", "ipmask", "ipv4", "ipv6"];
    const TEXT: &[&str] = &[
        "base",
        "base64",
        "concat",
        "cook",
        "field",
        "fe_name",
        "be_name",
        "hdr",
        "hex",
        "host_only",
        "lower",
        "method",
        "path",
        "pathq",
        "query",
        "regsub",
        "req.cook",
        "req.fhdr",
        "req.hdr",
        "req.hdrs",
        "req.ver",
        "res.fhdr",
        "res.hdr",
        "res.hdrs",
        "res.ver",
        "ssl_fc_alpn",
        "ssl_fc_cipher",
        "ssl_fc_protocol",
        "ssl_fc_sni",
        "str",
        "unique-id",
        "upper",
        "url",
        "url_dec",
        "url_param",
        "urlp",
        "uuid",
        "word",
    ];
    const INTEGER: &[&str] = &[
        "be_id",
        "date",
        "dst_port",
        "fe_id",
        "fc_http_major",
        "int",
        "length",
        "rand",
        "req.body_len",
        "req.body_size",
        "req.hdr_cnt",
        "req.hdr_val",
        "res.hdr_cnt",
        "res.hdr_val",
        "src_port",
        "status",
    ];
    const BOOL: &[&str] = &[
        "bool",
        "dst_is_local",
        "false",
        "req.hdr_exists",
        "src_is_local",
        "ssl_c_used",
        "ssl_fc",
        "true",
    ];
    const BYTES: &[&str] = &[
        "b64dec",
        "bin",
        "req.body",
        "req.hdrs_bin",
        "req.payload",
        "res.body",
        "sha1",
        "sha2",
        "ssl_c_der",
        "ssl_f_der",
        "ub64dec",
    ];
    let last = last_of_chain(expression);
    [
        (ADDRESS, Kind::Address),
        (TEXT, Kind::Text),
        (INTEGER, Kind::Integer),
        (BOOL, Kind::Bool),
        (BYTES, Kind::Bytes),
    ]
    .into_iter()
    .find_map(|(names, kind)| names.contains(&last).then_some(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_expressions_give() {
        for (expression, kind) in [
            ("src", Some(Kind::Address)),
            ("src,ipmask(24)", Some(Kind::Address)),
            ("req.hdr(host),lower", Some(Kind::Text)),
            ("req.hdr(x,1)", Some(Kind::Text)),
            ("path,length", Some(Kind::Integer)),
            ("var(txn.x)", None),
            ("src,map(/etc/a.map)", None),
            ("req.body", Some(Kind::Bytes)),
            ("ssl_fc", Some(Kind::Bool)),
            ("bytes(0,3)", None),
        ] {
            assert_eq!(gives(expression), kind, "{expression}");
        }
    }

    #[test]
    fn what_a_handler_can_take() {
        assert!(takes(Kind::Ipv4, Kind::Address));
        assert!(takes(Kind::Bytes, Kind::Text));
        assert!(!takes(Kind::Text, Kind::Bytes));
        assert!(!takes(Kind::Integer, Kind::Text));
        assert!(takes(Kind::Any, Kind::Bool));
    }
}
