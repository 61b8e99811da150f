//! An SPOE agent that checks bearer tokens (JWT), so that HAProxy lets nobody pass without a good one.
//!
//! See README.md beside it. [`Auth::user`] is the verdict, `router` what HAProxy gets of it.

mod ring_provider;
#[path = "../shared/serve.rs"]
mod serve;
#[cfg(test)]
mod vectors;

use std::error::Error;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use jsonwebtoken::errors::{self, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use spop_tokio::{Action, Agent, ConfigError, Router, Scope, Var};

/// The `spoe-message`.
const MESSAGE: &str = "check-token";
/// BOOL: the verdict. No rule may pass a request for which it is not true.
const ALLOWED: Var<'_> = Var::transaction("allowed");
/// STR: the subject of the token; only where the verdict is true.
const USER: Var<'_> = Var::transaction("user");
/// STR: why not; only where the verdict is false.
const REASON: Var<'_> = Var::transaction("reason");

const SITE: serve::Site<'_> = serve::Site {
    engine: "jwt",
    rules: &[
        "# The agent sees one header, the server might take the other.",
        "http-request deny deny_status 400 if { req.fhdr_cnt(authorization) gt 1 }",
        "# No verdict, and none that is good.",
        "http-request deny deny_status 503 unless { var(txn.jwt.allowed) -m found }",
        "http-request deny deny_status 401 unless { var(txn.jwt.allowed) -m bool }",
        "http-request set-header x-user %[var(txn.jwt.user)]",
    ],
    passes: "hello %[req.hdr(x-user)]",
};

/// Check the bearer tokens (JWT) of HAProxy's clients: an SPOE agent.
#[derive(Debug, Parser)]
#[command(name = "jwt-auth", version, max_term_width = 100, after_help = serve::AFTER_HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    options: serve::Options,

    /// What tokens are signed with. A token that names another algorithm is refused.
    #[arg(long, value_name = "ALGORITHM", value_enum, default_value_t = Kind::Hs256)]
    algorithm: Kind,

    /// The key: for HS256 the shared secret, at least 32 bytes, without a final line break; for the
    /// others the public key as PEM.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,

    /// The `iss` that tokens must have [default: any]
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,

    /// The `aud` that tokens must have among theirs [default: a token for an audience is refused]
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,

    /// How far clocks may be apart, in seconds: for so long a token is good after its `exp`.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    leeway: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// A secret that issuer and agent share
    Hs256,
    /// RSA, 2048 bits and more
    Rs256,
    /// ECDSA on P-256
    Es256,
    /// Ed25519
    Eddsa,
}

pub(crate) fn main() -> ExitCode {
    let args: Args = serve::parse(&SITE, MESSAGE, takes);
    serve::run("jwt-auth", async {
        let key = fs::read(&args.key)
            .map_err(Into::into)
            .and_then(|bytes| parse_key(args.algorithm, &bytes))
            .map_err(|error| format!("--key {}: {error}", args.key.display()))?;
        if args.options.check {
            let algorithm = args.algorithm.to_possible_value();
            let algorithm = algorithm.as_ref().map_or("?", |word| word.get_name());
            println!("{}: a key for {algorithm}", args.key.display());
            return Ok(());
        }
        let auth = Auth::new(args.algorithm, key, args.issuer, args.audience, args.leeway);
        args.options.serve(Agent::new(router(auth)?)).await?;
        Ok(())
    })
}

fn parse_key(kind: Kind, bytes: &[u8]) -> Result<DecodingKey, Box<dyn Error>> {
    Ok(match kind {
        Kind::Hs256 => {
            let secret = bytes.trim_ascii_end();
            if secret.len() < 32 {
                return Err(format!("{} bytes are no secret: HS256 wants 32", secret.len()).into());
            }
            DecodingKey::from_secret(secret)
        }
        Kind::Rs256 => DecodingKey::from_rsa_pem(bytes)?,
        Kind::Es256 => DecodingKey::from_ec_pem(bytes)?,
        Kind::Eddsa => DecodingKey::from_ed_pem(bytes)?,
    })
}

/// What a token is checked against.
struct Auth {
    key: DecodingKey,
    rules: Validation,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

#[derive(Debug)]
enum Refused {
    NoHeader,
    NoBearer,
    Subject,
    Token(errors::Error),
}

impl Auth {
    fn new(
        kind: Kind,
        key: DecodingKey,
        issuer: Option<String>,
        audience: Option<String>,
        leeway: u64,
    ) -> Self {
        ring_provider::install();
        // One algorithm, by the operator's word: never the one that a token names.
        let mut rules = Validation::new(match kind {
            Kind::Hs256 => Algorithm::HS256,
            Kind::Rs256 => Algorithm::RS256,
            Kind::Es256 => Algorithm::ES256,
            Kind::Eddsa => Algorithm::EdDSA,
        });
        rules.leeway = leeway;
        rules.validate_nbf = true;
        // A claim that is checked has to be there.
        let mut required = vec!["exp", "sub"];
        if let Some(issuer) = issuer {
            rules.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = audience {
            rules.set_audience(&[audience]);
            required.push("aud");
        }
        rules.set_required_spec_claims(&required);
        Self { key, rules }
    }

    /// Who it is, by the value of `Authorization`.
    fn user(&self, authorization: Option<&str>) -> Result<String, Refused> {
        let header = authorization.filter(|text| !text.is_empty()).ok_or(Refused::NoHeader)?;
        let (scheme, token) = header.split_once(' ').ok_or(Refused::NoBearer)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Refused::NoBearer);
        }
        let token = jsonwebtoken::decode::<Claims>(token.trim(), &self.key, &self.rules);
        let Claims { sub } = token.map_err(Refused::Token)?.claims;
        // It becomes a header of the request: no line of its own, and none that is empty.
        if sub.is_empty() || sub.chars().any(char::is_control) {
            return Err(Refused::Subject);
        }
        Ok(sub)
    }
}

impl fmt::Display for Refused {
    /// For the client: no word about keys, and nothing that it sent itself.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHeader => "no token",
            Self::NoBearer => "not a bearer token",
            Self::Subject => "no usable subject",
            Self::Token(error) => match error.kind() {
                ErrorKind::ExpiredSignature => "expired",
                ErrorKind::ImmatureSignature => "not valid yet",
                ErrorKind::InvalidIssuer => "wrong issuer",
                ErrorKind::InvalidAudience => "wrong audience",
                ErrorKind::MissingRequiredClaim(_) => "a claim is missing",
                ErrorKind::InvalidAlgorithm => "wrong algorithm",
                ErrorKind::InvalidSignature => "wrong signature",
                _ => "malformed",
            },
        })
    }
}

#[derive(Deserialize)]
struct Check<'a> {
    /// NULL where the request has none.
    authorization: Option<&'a str>,
}

fn router(auth: Auth) -> Result<Router, ConfigError> {
    takes(Router::new().on(MESSAGE, move |message, ack| {
        let check: Check<'_> = message.deserialize()?;
        match auth.user(check.authorization) {
            Ok(user) => {
                ack.set_var(USER, user.as_str())?;
                ack.set_var(ALLOWED, true)?;
            }
            Err(refused) => {
                ack.set_var(REASON, refused.to_string().as_str())?;
                ack.set_var(ALLOWED, false)?;
            }
        }
        Ok(())
    }))
    // A header that is not text, or a handler that failed.
    .fallback([
        Action::set(Scope::Transaction, REASON.name(), "not checked"),
        Action::set(Scope::Transaction, ALLOWED.name(), false),
    ])
}

/// The arguments, as spoe.conf has them.
fn takes(route: Router) -> Router {
    route.args::<Check<'_>>().declares(["authorization=req.fhdr(authorization)"])
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::{Value as Json, json};
    use spop_tokio::testing;

    use super::*;

    pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

    /// Seconds from now, as a claim.
    pub(crate) fn at(seconds: i64) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        i64::try_from(now).unwrap() + seconds
    }

    pub(crate) fn token(claims: &Json, secret: &str) -> String {
        ring_provider::install();
        let key = EncodingKey::from_secret(secret.as_bytes());
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap();
        format!("Bearer {token}")
    }

    fn agent() -> Router {
        let (key, issuer) = (DecodingKey::from_secret(SECRET.as_bytes()), Some("me".to_owned()));
        router(Auth::new(Kind::Hs256, key, issuer, None, 5)).unwrap()
    }

    #[track_caller]
    fn assert_refused(authorization: &str, reason: &str) {
        let answer = testing::message("check-token").arg("authorization", authorization);
        let expected = format!("txn.reason = str {reason}\ntxn.allowed = bool false\n");
        assert_eq!(answer.ask(&agent()).to_string(), expected, "{authorization}");
    }

    #[test]
    fn a_good_token_names_its_user() {
        let token = token(&json!({ "sub": "alice", "iss": "me", "exp": at(60) }), SECRET);
        let answer = testing::message("check-token").arg("authorization", token.as_str());
        let expected = "txn.user = str alice\ntxn.allowed = bool true\n";
        assert_eq!(answer.ask(&agent()).to_string(), expected);
    }

    #[test]
    fn others_are_refused_and_told_why() {
        let good = json!({ "sub": "alice", "iss": "me", "exp": at(60) });
        let with = |name: &str, value: Json| {
            let mut claims = good.clone();
            claims[name] = value;
            token(&claims, SECRET)
        };
        assert_refused("", "no token");
        assert_refused("Basic YTpi", "not a bearer token");
        assert_refused("Bearer x.y.z", "malformed");
        assert_refused(&token(&good, "another secret of the same length"), "wrong signature");
        assert_refused(&with("exp", at(-60).into()), "expired");
        assert_refused(&with("nbf", at(60).into()), "not valid yet");
        assert_refused(&with("iss", "you".into()), "wrong issuer");
        assert_refused(&with("aud", "another service".into()), "wrong audience");
        assert_refused(&with("sub", "a\r\nx-admin: 1".into()), "no usable subject");
        assert_refused(&token(&json!({ "sub": "a", "iss": "me" }), SECRET), "a claim is missing");
        assert_refused(&token(&json!({ "sub": "a", "exp": at(60) }), SECRET), "a claim is missing");
    }

    /// `{"alg":"none"}` and a token without a signature: the oldest trick there is.
    #[test]
    fn a_token_does_not_choose_its_algorithm() {
        assert_refused("Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.", "malformed");
        let other = "Bearer eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiJhIn0.AAAA";
        assert_refused(other, "wrong algorithm");
    }

    #[test]
    fn no_header_and_no_text_are_refused() {
        let question = || testing::message("check-token");
        let null = question().arg("authorization", spop_tokio::Value::Null).ask(&agent());
        assert!(null.to_string().contains("no token"), "{null}");
        let bytes = question().arg("authorization", spop_tokio::Value::Str(b"Bearer \xff"));
        let answer = bytes.ask(&agent());
        assert_eq!(answer.get(Scope::Transaction, "allowed"), Some(false.into()));
    }

    #[test]
    fn public_keys_of_every_kind() {
        for (kind, pem, token) in vectors::ALL {
            let auth = Auth::new(kind, parse_key(kind, pem.as_bytes()).unwrap(), None, None, 5);
            let good = auth.user(Some(&format!("Bearer {token}"))).unwrap();
            assert_eq!(good, "alice", "{kind:?}");
            let forged = token.replacen("eyJz", "eyJ0", 1);
            assert_ne!(forged, token);
            let error = auth.user(Some(&format!("Bearer {forged}"))).unwrap_err();
            assert_eq!(error.to_string(), "wrong signature", "{kind:?}");
        }
    }

    /// The public key as the secret of an HMAC: who knows it could sign for anybody.
    #[test]
    fn a_public_key_is_no_secret() {
        let (kind, pem, _) = vectors::ALL[0];
        let auth = Auth::new(kind, parse_key(kind, pem.as_bytes()).unwrap(), None, None, 5);
        let forged = token(&json!({ "sub": "alice", "exp": at(60) }), pem);
        assert_eq!(auth.user(Some(&forged)).unwrap_err().to_string(), "wrong algorithm");
    }

    #[test]
    fn short_secrets_are_no_keys() {
        let error = parse_key(Kind::Hs256, b"too short\n").map(drop).unwrap_err().to_string();
        assert_eq!(error, "9 bytes are no secret: HS256 wants 32");
    }
}
