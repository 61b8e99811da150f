use super::*;

fn list(text: &str) -> List {
    List::parse(text.as_bytes()).unwrap()
}

fn refusal(text: &str) -> String {
    List::parse(text.as_bytes()).unwrap_err().to_string()
}

#[track_caller]
fn assert_scores(list: &List, expected: &[(&str, i32)]) {
    for &(ip, score) in expected {
        assert_eq!(list.score(ip.parse().unwrap()), score, "{ip}");
    }
}

#[test]
fn longest_prefix_wins_in_any_order_of_lines() {
    let lines = ["0.0.0.0/0 1", "10.0.0.0/8 2", "10.1.0.0/16 3", "10.1.2.3 4"];
    let expected = [("11.0.0.0", 1), ("10.2.0.0", 2), ("10.1.2.4", 3), ("10.1.2.3", 4)];
    assert_scores(&list(&lines.join("\n")), &expected);
    let reversed: Vec<_> = lines.into_iter().rev().collect();
    assert_scores(&list(&reversed.join("\n")), &expected);
}

#[test]
fn longest_prefix_wins_for_ipv6_too() {
    let list = list("::/0 1\n2001:db8::/32 2\n2001:db8::1 3");
    assert_scores(&list, &[("2001:db7::1", 1), ("2001:db8::2", 2), ("2001:db8::1", 3)]);
}

#[test]
fn default_where_nothing_matches() {
    let list = list("192.0.2.0/24 50\n2001:db8::/32 60");
    assert_scores(&list, &[("192.0.3.0", DEFAULT_SCORE), ("2001:db9::", DEFAULT_SCORE)]);
    assert_scores(&list, &[("192.0.2.0", 50), ("192.0.2.255", 50)]);
}

#[test]
fn families_do_not_mix() {
    // The same bits: 32.1.13.184 is 2001:0db8 in hexadecimal.
    assert_scores(&list("32.1.13.184 50"), &[("2001:db8::", DEFAULT_SCORE)]);
    assert_scores(&list("::/0 50"), &[("192.0.2.1", DEFAULT_SCORE)]);
}

#[test]
fn bare_address_is_one_address() {
    let list = list("192.0.2.7 50\n2001:db8::7 60");
    assert_scores(&list, &[("192.0.2.7", 50), ("192.0.2.6", 10), ("192.0.2.8", 10)]);
    assert_scores(&list, &[("2001:db8::7", 60), ("2001:db8::6", 10), ("2001:db8::8", 10)]);
}

#[test]
fn mapped_ipv6_is_looked_up_as_ipv4() {
    let list = list("192.0.2.0/24 50\n::/0 60");
    assert_scores(&list, &[("::ffff:192.0.2.1", 50), ("::ffff:198.51.100.1", DEFAULT_SCORE)]);
    // Not mapped, only alike.
    assert_scores(&list, &[("::192.0.2.1", 60), ("::fffe:192.0.2.1", 60)]);
}

#[test]
fn comments_blank_lines_and_white_space() {
    let list = list("# head\n\n  \t\n 192.0.2.1\t 20 # office\r\n192.0.2.2 30#tight\n   # end");
    assert_eq!(list.len(), 2);
    assert_scores(&list, &[("192.0.2.1", 20), ("192.0.2.2", 30)]);
}

#[test]
fn comment_may_be_in_any_encoding() {
    let list = List::parse(b"192.0.2.1 20 # caf\xe9").unwrap();
    assert_scores(&list, &[("192.0.2.1", 20)]);
    let error = List::parse(b"192.0.2.1 20\n192.0.2.2\xe9 20").unwrap_err();
    assert_eq!(error.to_string(), "2: \"192.0.2.2\u{fffd} 20\": not UTF-8 (only a comment may be)");
}

#[test]
fn byte_order_mark_is_skipped() {
    assert_scores(&list("\u{feff}192.0.2.1 20"), &[("192.0.2.1", 20)]);
}

#[test]
fn score_is_any_i32() {
    let list = list("192.0.2.1 -2147483648\n192.0.2.2 2147483647\n192.0.2.3 0");
    assert_scores(&list, &[("192.0.2.1", i32::MIN), ("192.0.2.2", i32::MAX), ("192.0.2.3", 0)]);
    for score in ["2147483648", "-2147483649", "high", "1.5", "0x10"] {
        assert_eq!(
            refusal(&format!("192.0.2.1 {score}")),
            format!(
                "1: \"192.0.2.1 {score}\": \
                 score \"{score}\" is not an integer from -2147483648 to 2147483647"
            ),
        );
    }
}

#[test]
fn missing_score_and_surplus_words() {
    assert_eq!(refusal("192.0.2.1"), "1: \"192.0.2.1\": no score: write CIDR SCORE");
    assert_eq!(refusal("192.0.2.1 # 20"), "1: \"192.0.2.1 # 20\": no score: write CIDR SCORE");
    assert_eq!(
        refusal("192.0.2.1 20 30"),
        "1: \"192.0.2.1 20 30\": \"30\" after the score: write CIDR SCORE, comments start with #"
    );
}

#[test]
fn bad_address_and_bad_length() {
    let not_an_address = "\"192.0.2\" is not an IPv4 or IPv6 address";
    assert_eq!(refusal("192.0.2/24 1"), format!("1: \"192.0.2/24 1\": {not_an_address}"));
    for (prefix, length, most) in [
        ("192.0.2.0/33", "33", 32),
        ("2001:db8::/129", "129", 128),
        ("192.0.2.0/", "", 32),
        ("192.0.2.0/-1", "-1", 32),
        ("10.0.0.0/255.0.0.0", "255.0.0.0", 32),
    ] {
        assert_eq!(
            refusal(&format!("{prefix} 1")),
            format!(
                "1: \"{prefix} 1\": prefix length \"{length}\" is not a number from 0 to {most}"
            ),
        );
    }
}

#[test]
fn host_bits_are_refused_with_a_suggestion() {
    assert_eq!(
        refusal("10.0.0.1/8 50"),
        "1: \"10.0.0.1/8 50\": 10.0.0.1/8 has bits set behind its prefix: \
         write 10.0.0.0/8 (or 10.0.0.1 for that address alone)"
    );
    assert_eq!(
        refusal("2001:db8::1/32 50"),
        "1: \"2001:db8::1/32 50\": 2001:db8::1/32 has bits set behind its prefix: \
         write 2001:db8::/32 (or 2001:db8::1 for that address alone)"
    );
}

#[test]
fn mapped_prefix_is_refused_with_a_suggestion() {
    let tail = "IPv4 written as IPv6, which is looked up as IPv4 and would never match";
    assert_eq!(
        refusal("::ffff:192.0.2.0/120 50"),
        format!("1: \"::ffff:192.0.2.0/120 50\": {tail}: write 192.0.2.0/24")
    );
    assert_eq!(list("::fffe:0:0/95 50").len(), 1, "wider than the mapped range");
}

#[test]
fn duplicate_names_both_lines() {
    assert_eq!(
        refusal("192.0.2.1 20\n\n192.0.2.1/32 30"),
        "3: \"192.0.2.1/32 30\": 192.0.2.1/32 has its score in line 1 already"
    );
    assert_eq!(
        refusal("# head\n2001:DB8::/32 20\n2001:db8:0::/32 20"),
        "3: \"2001:db8:0::/32 20\": 2001:db8::/32 has its score in line 2 already"
    );
    assert_eq!(
        list("192.0.2.0/24 20\n192.0.2.0/25 20").len(),
        2,
        "another length is another prefix"
    );
}

#[test]
fn errors_name_the_file() {
    let path = Path::new("/nonexistent/reputation.list");
    let error = List::load(path).unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/reputation.list: No such file"), "{error}");
    let error = LoadError {
        path: path.to_owned(),
        fault: LoadFault::BadLine(List::parse(b"\nx 1").unwrap_err()),
    };
    assert_eq!(
        error.to_string(),
        "/nonexistent/reputation.list:2: \"x 1\": \"x\" is not an IPv4 or IPv6 address"
    );
}

#[test]
fn summary() {
    assert_eq!(
        list("192.0.2.1 -5\n2001:db8::/32 95\n2001:db8::1 20").to_string(),
        "3 prefixes (1 IPv4, 2 IPv6), scores from -5 to 95, 10 where nothing matches"
    );
    assert_eq!(list("").to_string(), "0 prefixes (0 IPv4, 0 IPv6), 10 where nothing matches");
}
