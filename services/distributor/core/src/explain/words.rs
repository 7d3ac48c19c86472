//! Numbers, lists and times as people write them.

use super::Count;

/// `1 task`, `2 tasks`, `at least 1000 tasks`.
pub(super) fn count(count: Count, one: &str, many: &str) -> String {
    let least = if count.at_least { "at least " } else { "" };
    format!("{least}{}", number(count.count, one, many))
}

/// `1 task`, `2 tasks`.
pub(super) fn number(n: u64, one: &str, many: &str) -> String {
    let what = if n == 1 { one } else { many };
    format!("{n} {what}")
}

/// As a sentence begins.
pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn list(words: &[String], and: &str) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [many @ .., last] => format!("{} {and} {last}", many.join(", ")),
    }
}

/// `450 ms`, `4.2 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`.
pub(super) fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    let two = |big: u64, name: &str, small: u64, other: &str| match small {
        0 => format!("{big} {name}"),
        _ => format!("{big} {name} {small} {other}"),
    };
    match seconds {
        0 => format!("{ms} ms"),
        1..60 => match ms % 1_000 / 100 {
            0 => format!("{seconds} s"),
            tenth => format!("{seconds}.{tenth} s"),
        },
        60..3_600 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (ms, words) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1 s"),
            (4_250, "4.2 s"),
            (59_999, "59.9 s"),
            (60_000, "1 min"),
            (185_000, "3 min 5 s"),
            (7_800_000, "2 h 10 min"),
            (86_400_000, "1 d"),
            (277_200_000, "3 d 5 h"),
        ] {
            assert_eq!(duration(ms), words);
        }
    }

    #[test]
    fn lists_and_numbers_agree_with_what_they_count() {
        let words = |n: usize| -> Vec<String> {
            ["a", "b", "c"][..n]
                .iter()
                .map(|w| (*w).to_owned())
                .collect()
        };
        assert_eq!(list(&words(0), "and"), "");
        assert_eq!(list(&words(1), "and"), "a");
        assert_eq!(list(&words(2), "or"), "a or b");
        assert_eq!(list(&words(3), "and"), "a, b and c");
        let some = |n, at_least| Count { count: n, at_least };
        assert_eq!(count(some(1, false), "task", "tasks"), "1 task");
        assert_eq!(count(some(0, false), "task", "tasks"), "0 tasks");
        assert_eq!(count(some(9, true), "task", "tasks"), "at least 9 tasks");
    }
}
