//! Which of two versions is higher: Debian's order (deb-version(7)), which suits most other schemes too.
use std::cmp::Ordering;

/// Compares two versions: numbers as numbers, `~` before everything, even the end, and an `epoch:` first.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let epoch = |text: &str| text.split_once(':').and_then(|(epoch, _)| epoch.parse::<u64>().ok()).unwrap_or(0);
    let rest = |text: &str| text.split_once(':').map_or(text.to_owned(), |(_, rest)| rest.to_owned());
    let revision = |text: &str| match rest(text).rsplit_once('-') {
        Some((upstream, revision)) => (upstream.to_owned(), revision.to_owned()),
        None => (rest(text), String::new()),
    };
    let ((upstream_a, revision_a), (upstream_b, revision_b)) = (revision(a), revision(b));
    (epoch(a).cmp(&epoch(b)))
        .then_with(|| compare_part(&upstream_a, &upstream_b))
        .then_with(|| compare_part(&revision_a, &revision_b))
        .then_with(|| a.cmp(b))
}

fn compare_part(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (text_a, text_b) = (take(&mut a, |c| !c.is_ascii_digit()), take(&mut b, |c| !c.is_ascii_digit()));
        let (number_a, number_b) = (take(&mut a, |c| c.is_ascii_digit()), take(&mut b, |c| c.is_ascii_digit()));
        let order = compare_text(text_a, text_b).then_with(|| compare_number(number_a, number_b));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

fn take<'a>(text: &mut &'a str, wanted: impl Fn(char) -> bool) -> &'a str {
    let end = text.find(|c| !wanted(c)).unwrap_or(text.len());
    let (head, tail) = text.split_at(end);
    *text = tail;
    head
}

fn compare_text(a: &str, b: &str) -> Ordering {
    let rank = |c: Option<char>| match c {
        Some('~') => 0,
        None => 1,
        Some(c) if c.is_ascii_alphabetic() => 2 + u32::from(c),
        Some(c) => 0x11_0000 + u32::from(c),
    };
    let (mut a, mut b) = (a.chars(), b.chars());
    loop {
        match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (x, y) if rank(x) != rank(y) => return rank(x).cmp(&rank(y)),
            _ => {}
        }
    }
}

/// Numbers of any length: without leading zeros the longer one is the higher.
fn compare_number(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_order_as_debian_orders_them() {
        let ordered = ["1.0~rc1", "1.0", "1.0-1", "1.0-1+b1", "1.0a", "1.0+x", "1.2", "1.10", "10.0", "1:0.1"];
        for (index, low) in ordered.iter().enumerate() {
            for high in &ordered[index + 1..] {
                assert_eq!(compare(low, high), Ordering::Less, "{low} {high}");
                assert_eq!(compare(high, low), Ordering::Greater, "{high} {low}");
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_an_order(a in "[0-9a.~+:-]{0,8}", b in "[0-9a.~+:-]{0,8}", c in "[0-9a.~+:-]{0,8}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &b).is_eq(), a == b);
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }
    }
}
