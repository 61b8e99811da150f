//! Public keys and a token for each, made with OpenSSL: `{"sub":"alice","iss":"me","exp":4102444800}`, which
//! is the year 2100.

use super::Kind;

pub(super) const ALL: [(Kind, &str, &str); 3] = [
    (
        Kind::Rs256,
        "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAyJsb2sd7YGQNJrZZgP9V
W9xgOlJ/Bl5AYSoYrTGjTQaSXMal/bEfCGyw1fUbLsXPxUWohuWZm1g7M/fCWtIn
cXIRzpv5iFvkB9gqWFreMfUIaHTThE0sC4zQqW9ueCtCyJPz0rjdlngC9N8RnOwY
YH3azBDaruhhm2wcGeJOfb0UqVmEETSUyJ09zzxYd9+7cGh8VA0A/0lKRpMEYG6r
mAVQS2M22U+IwIQ8n0rPXV4oC/IrIFeXwhbCD967InnnZpWz41IYHUiP0GKpdDSJ
hkuVxOeO7mQAW5zB/uxzBpBZSXtE3S6GJ9xRIFmhtogcpTeTsLNWE77UDDPl5vpT
qwIDAQAB
-----END PUBLIC KEY-----
",
        "\
         eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSIsImlzcyI6Im1lIiwiZXhwIjo0MTAyNDQ0ODAwfQ.lY9QrrP_go\
         59H2gcvPVUhaKNJksq0wtjSScxIFgLDVauoTFmPuokTDcOEFdDS6ks7qATS_dOdSZqqEDK998a2ltq336rC4fts_dj\
         Rf5RCKaWr4-IfM9POz6DKVzREGpEgIHLqGNBYx2m21cjo-uu8oVmfkGceZfnDfLztwEpnMkMa2jFB2XnDuO4YShYmy\
         V1NFgkycAt6kUd12nJ9PD7Vse1zJdVQkQxFeZ8iIs9_qFeKGXUkv6ngzpyNiafCjcMPeeb1r3Ein-nRU19-8-felhF\
         Q0KboVHRSJavodzy9lkCXAYJ7lRAUUyAmkJxC8AIrKBgJi97DpjaZZcIHxXdbQ",
    ),
    (
        Kind::Es256,
        "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEdCt01I4mj9C2brDTX3dXkAVoGff9
io0U0kz33qrwxxeSYQ3cM7t2nk1MnWNKkU+01bCXBdFSghTDgb3/ZySzAw==
-----END PUBLIC KEY-----
",
        "\
         eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSIsImlzcyI6Im1lIiwiZXhwIjo0MTAyNDQ0ODAwfQ.65Bpwd-Lq4\
         Ug4wr9HHOphdZ05jP84Vw9qlDjAvs5D1IALd08N-_gkBEQLWkzMnrVx7WqS3ZDDDvXw8ZwGn-M9A",
    ),
    (
        Kind::Eddsa,
        "\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA+xgvlxtO8BGXylQ3//YKY5s3dPWCfoUrOotMf49yS8g=
-----END PUBLIC KEY-----
",
        "\
         eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbGljZSIsImlzcyI6Im1lIiwiZXhwIjo0MTAyNDQ0ODAwfQ.SNP5usVSlE\
         XNky4maFmd5uYfwoawfAfbiIBy_7ilcfRl6Vc320PfmffxfcDfAT93LaqjxQdpWM0yonkmNYU1BA",
    ),
];
