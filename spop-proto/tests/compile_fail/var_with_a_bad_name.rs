//! HAProxy would drop the name without a word; the compiler says it.

use spop_proto::Var;

const IP_SCORE: Var<'static> = Var::transaction("ip-score");

fn main() {
    let _ = IP_SCORE;
}
