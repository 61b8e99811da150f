//! The agent: a verdict for each request, and for each request that it cannot judge, too.

use std::future;
use std::time::Duration;

use spop_proto::{
    Action, AgentConfig, ConfigError, Exchange, Handler, HandlerError, Limits, Reply, Scope, Var,
};

/// The variable that HAProxy's rules read, `txn.guard.verdict`: `allow`, `deny`, or `unknown` where there
/// was no judgement. It ends with the request.
const VERDICT: &str = "verdict";

/// What is sent where the handler gives no answer: it failed, panicked, is late, set more than fits, or
/// was not even called because too much is to be done already.
///
/// # Errors
/// When `answer_timeout` is no deadline.
pub(crate) fn config(answer_timeout: Duration) -> Result<AgentConfig, ConfigError> {
    let config = AgentConfig::new()
        // `option var-prefix` of spoe.conf: a name that would be too long with it is an error here.
        .var_prefix("guard")?
        .fallback([Action::set(Scope::Transaction, VERDICT, "unknown")])?
        // Which of these it was, as txn.guard.reason.
        .fallback_reason(Var::transaction("reason"))?;
    // Below `timeout processing` of spoe.conf, or a late answer is an error of HAProxy's instead.
    Ok(config.limits(Limits::new().answer_timeout(answer_timeout)?))
}

/// Nobody may see what is below `/admin`.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Whether some paths go wrong on purpose.
    pub(crate) provoke: bool,
}

impl Handler for Guard {
    /// Any `?` here ends in the fallback, also that of a path that is not UTF-8. What was set before is
    /// not sent then.
    async fn notify(&self, mut exchange: Exchange) -> Result<Exchange, HandlerError> {
        let (notify, mut reply) = exchange.split();
        let path: &str = notify.require("check-request")?.get("path")?;
        if self.provoke && go_wrong(path, &mut reply).await? == Answer::WithoutVerdict {
            return Ok(exchange);
        }
        let verdict = if path.starts_with("/admin") { "deny" } else { "allow" };
        reply.set(Scope::Transaction, VERDICT, verdict)?;
        Ok(exchange)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    WithVerdict,
    WithoutVerdict,
}

/// What can happen to any handler, by path: to see what HAProxy makes of it.
#[expect(clippy::panic, reason = "on purpose, and only where the operator asked for it")]
async fn go_wrong(path: &str, reply: &mut Reply<'_>) -> Result<Answer, HandlerError> {
    match path {
        "/error" => return Err(HandlerError::new("the rules cannot be read")),
        "/panic" => panic!("a bug"),
        "/slow" => future::pending().await,
        "/large" => {
            // This one fits and is taken back: an answer is sent whole or not at all.
            reply.set(Scope::Transaction, VERDICT, "allow")?;
            reply.set(Scope::Transaction, "explanation", &*"x".repeat(20_000))?;
        }
        // A bug that no library can see: the handler is content, and forgot the verdict.
        "/silent" => return Ok(Answer::WithoutVerdict),
        _ => {}
    }
    Ok(Answer::WithVerdict)
}

#[cfg(test)]
mod tests {
    use spop_proto::handler::Concurrent;
    use spop_proto::testing;

    use super::*;

    /// The variables HAProxy has then.
    #[track_caller]
    fn answer(path: &str) -> String {
        let config = config(Duration::from_millis(80)).unwrap();
        let question = testing::message("check-request").arg("path", path).config(config);
        let answer = question.prefix("guard").ask(&Concurrent::new(Guard { provoke: true }));
        let text = answer.to_string();
        text.lines().filter(|line| line.starts_with("txn.")).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_verdict_for_each_request() {
        assert_eq!(answer("/"), "txn.guard.verdict = str allow");
        assert_eq!(answer("/admin/users"), "txn.guard.verdict = str deny");
        for (path, reason) in
            [("/error", "error"), ("/panic", "panic"), ("/slow", "deadline"), ("/large", "too-big")]
        {
            let want = format!("txn.guard.verdict = str unknown, txn.guard.reason = str {reason}");
            assert_eq!(answer(path), want, "{path}");
        }
        assert_eq!(answer("/silent"), "");
    }

    #[test]
    fn a_message_that_is_not_understood_is_not_allowed() {
        let config = config(Duration::from_millis(80)).unwrap();
        for question in
            [testing::message("check-request"), testing::message("another").arg("path", "/")]
        {
            let answer =
                question.config(config.clone()).ask(&Concurrent::new(Guard { provoke: false }));
            let verdict = answer.get(Scope::Transaction, VERDICT);
            assert_eq!(verdict, Some("unknown".into()), "{answer}");
        }
    }
}
