//! Certificates for the tests of recipes, made on the spot.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    KeyUsagePurpose,
};

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn authority() -> Authority {
    let mut params = params("authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate of that authority and its key, as PEM.
pub(crate) fn issue(authority: &Authority, name: &str) -> [String; 2] {
    let key = KeyPair::generate().unwrap();
    [params(name).signed_by(&key, authority).unwrap().pem(), key.serialize_pem()]
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    // Each its own: OpenSSL takes a certificate for self-signed whose subject is that of its issuer.
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
