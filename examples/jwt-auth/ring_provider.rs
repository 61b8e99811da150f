//! Signatures for `jsonwebtoken` by ring. Its own backends are not taken: `rust_crypto` has an RSA with
//! an advisory that has no fix (RUSTSEC-2023-0071), `aws_lc_rs` wants a C toolchain.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{Error, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use ring::{hmac, signature};

/// To be called once, before the first token; without it `jsonwebtoken` panics.
pub(crate) fn install() {
    static RING: CryptoProvider = CryptoProvider {
        signer_factory: signer,
        verifier_factory: verifier,
        key_utils: KeyUtils::new_unimplemented(),
    };
    // An error says that it is installed already.
    let _ = RING.install_default();
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    // `jsonwebtoken` has checked that the key is of the algorithm's family.
    let key = key.try_get_as_bytes()?;
    let public = |kind: &'static dyn signature::VerificationAlgorithm| {
        Key::Public(signature::UnparsedPublicKey::new(kind, key.to_vec()))
    };
    let key = match algorithm {
        Algorithm::HS256 => Key::Shared(hmac::Key::new(hmac::HMAC_SHA256, key)),
        Algorithm::RS256 => public(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::ES256 => public(&signature::ECDSA_P256_SHA256_FIXED),
        Algorithm::EdDSA => public(&signature::ED25519),
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    };
    Ok(Box::new(ByRing { algorithm: *algorithm, key }))
}

struct ByRing {
    algorithm: Algorithm,
    key: Key,
}

enum Key {
    Shared(hmac::Key),
    Public(signature::UnparsedPublicKey<Vec<u8>>),
}

impl Verifier<Vec<u8>> for ByRing {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        let verified = match &self.key {
            Key::Shared(key) => hmac::verify(key, message, signature),
            Key::Public(key) => key.verify(message, signature),
        };
        verified.map_err(|_| Error::new())
    }
}

impl JwtVerifier for ByRing {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// Tokens are made elsewhere.
#[cfg(not(test))]
fn signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

#[cfg(test)]
fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    struct Hs256(hmac::Key);

    impl jsonwebtoken::signature::Signer<Vec<u8>> for Hs256 {
        fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
            Ok(hmac::sign(&self.0, message).as_ref().to_vec())
        }
    }

    impl JwtSigner for Hs256 {
        fn algorithm(&self) -> Algorithm {
            Algorithm::HS256
        }
    }

    assert_eq!(*algorithm, Algorithm::HS256);
    Ok(Box::new(Hs256(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()))))
}
