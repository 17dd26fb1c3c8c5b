//! The queue alone, under an invented clock.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn queue(concurrency: usize) -> Queue<u32> {
    Queue::new(Timing {
        interval: SECOND * 600,
        retry_first: SECOND * 5,
        retry_longest: SECOND * 60,
        concurrency,
        seed: 1,
    })
}

fn key(name: &str) -> Key {
    Key { namespace: "default".to_owned(), name: name.to_owned() }
}

/// A pause is what was asked for, give or take a tenth.
fn about(pause: Duration, wanted: Duration) -> bool {
    pause >= wanted.mul_f64(0.89) && pause <= wanted.mul_f64(1.11)
}

#[tokio::test]
async fn a_key_is_out_once_and_due_again_when_it_changed_meanwhile() {
    let (mut queue, now) = (queue(4), Instant::now());
    queue.seen(key("a"), 1, now);
    assert_eq!(queue.take(now), Some(key("a")));
    assert_eq!(queue.take(now), None, "it is out");
    queue.seen(key("a"), 2, now);
    assert_eq!(queue.take(now), None, "it changed, and is still out");
    queue.back(&key("a"), After::Settled, now);
    assert_eq!(queue.take(now), Some(key("a")), "the change has not been looked at");
    queue.back(&key("a"), After::Settled, now);
    assert_eq!(queue.take(now), None);
    queue.seen(key("a"), 2, now);
    assert_eq!(queue.take(now), None, "nothing changed: its own status write must not wake it");
}

#[tokio::test]
async fn equal_times_are_served_in_order_and_no_more_at_once_than_allowed() {
    let (mut queue, now) = (queue(2), Instant::now());
    for name in ["c", "a", "b"] {
        queue.seen(key(name), 1, now);
    }
    assert_eq!(queue.take(now), Some(key("c")));
    assert_eq!(queue.take(now), Some(key("a")));
    assert_eq!((queue.next_due(), queue.take(now)), (None, None), "two are out");
    queue.back(&key("c"), After::Settled, now);
    assert_eq!(queue.take(now), Some(key("b")));
}

#[tokio::test]
async fn what_is_gone_is_not_served_and_can_come_back() {
    let (mut queue, now) = (queue(4), Instant::now());
    queue.seen(key("a"), 1, now);
    queue.seen(key("b"), 1, now);
    queue.keep_only(&BTreeSet::from([key("b")]));
    assert_eq!(queue.take(now), Some(key("b")));
    assert_eq!(queue.take(now), None);
    queue.gone(&key("b"));
    queue.seen(key("b"), 1, now);
    assert_eq!(queue.take(now), None, "the pass over the old b still runs");
    queue.back(&key("b"), After::Settled, now);
    assert_eq!(queue.take(now), Some(key("b")), "the new b has not been looked at");
    queue.gone(&key("b"));
    queue.back(&key("b"), After::Unsettled, now);
    assert_eq!(queue.next_due(), None);
}

#[tokio::test]
async fn pauses_double_to_their_limit_and_start_again_after_success_or_change() {
    let (mut queue, mut now) = (queue(1), Instant::now());
    queue.seen(key("a"), 1, now);
    let mut pass = |queue: &mut Queue<u32>, after| {
        now = queue.next_due().unwrap_or(now).max(now);
        assert_eq!(queue.take(now), Some(key("a")));
        queue.back(&key("a"), after, now);
        queue.next_due().map(|due| due - now).unwrap_or_default()
    };
    for wanted in [5, 10, 20, 40, 60, 60] {
        let pause = pass(&mut queue, After::Unsettled);
        assert!(about(pause, SECOND * wanted), "{pause:?} instead of {wanted} s");
    }
    for _ in 0..70 {
        pass(&mut queue, After::Unsettled);
    }
    assert!(about(pass(&mut queue, After::Settled), SECOND * 600));
    assert!(about(pass(&mut queue, After::Unsettled), SECOND * 5));
}

#[tokio::test]
async fn passes_that_began_together_drift_apart() {
    let (mut queue, now) = (queue(100), Instant::now());
    for n in 0..100 {
        queue.seen(key(&format!("s{n}")), 1, now);
    }
    while let Some(key) = queue.take(now) {
        queue.back(&key, After::Settled, now);
    }
    let dues: BTreeSet<Instant> = queue.due.iter().map(|(at, _, _)| *at).collect();
    assert!(dues.len() > 80, "{} different times", dues.len());
    assert!(dues.iter().all(|due| about(*due - now, SECOND * 600)));
}
