//! With scope, prefix and dots no more than 63 bytes.

use spop_proto::Var;

const LONG: Var<'static> =
    Var::transaction("a_name_that_is_longer_than_what_haproxy_takes_with_scope_and_prefix");

fn main() {
    let _ = LONG;
}
