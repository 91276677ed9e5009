//! Small registers, linearizable and not.

use pintle_chaos::linearizability::{Piece, Step, Verdict, search};

const BUDGET: usize = 100_000;

fn piece(invoked: u64, completed: impl Into<Option<u64>>, step: Step) -> Piece {
    Piece { invoked, completed: completed.into(), step }
}

#[test]
fn what_follows_in_time_is_linearizable() {
    let pieces = [
        piece(1, 2, Step::Wrote(7)),
        piece(3, 4, Step::Saw(7)),
        piece(5, 6, Step::Replaced(7, 8)),
        piece(7, 8, Step::Saw(8)),
    ];
    assert_eq!(search(&pieces, BUDGET), Verdict::Linearizable);
}

#[test]
fn a_read_of_what_was_overwritten_is_not() {
    let pieces =
        [piece(1, 2, Step::Wrote(7)), piece(3, 4, Step::Wrote(8)), piece(5, 6, Step::Saw(7))];
    assert_eq!(search(&pieces, BUDGET), Verdict::Violated(vec![2]));
}

#[test]
fn two_reads_during_a_write_may_not_go_back() {
    let reads =
        |first, second| [piece(1, 10, Step::Wrote(7)), piece(2, 3, first), piece(4, 5, second)];
    let forward = reads(Step::Saw(0), Step::Saw(7));
    assert_eq!(search(&forward, BUDGET), Verdict::Linearizable);
    let back = reads(Step::Saw(7), Step::Saw(0));
    assert!(matches!(search(&back, BUDGET), Verdict::Violated(_)));
}

#[test]
fn an_open_write_may_happen_late_or_never_but_once() {
    let open = piece(1, None, Step::Wrote(7));
    let seen = [open, piece(2, 3, Step::Saw(0)), piece(4, 5, Step::Saw(7))];
    assert_eq!(search(&seen, BUDGET), Verdict::Linearizable);
    let unseen = [open, piece(2, 3, Step::Saw(0)), piece(4, 5, Step::Saw(0))];
    assert_eq!(search(&unseen, BUDGET), Verdict::Linearizable);
    let twice =
        [open, piece(2, 3, Step::Saw(7)), piece(4, 5, Step::Wrote(8)), piece(6, 7, Step::Saw(7))];
    assert!(matches!(search(&twice, BUDGET), Verdict::Violated(_)));
}

#[test]
fn two_swaps_of_the_same_value_cannot_both_win() {
    let pieces = [
        piece(1, 2, Step::Wrote(1)),
        piece(3, 9, Step::Replaced(1, 2)),
        piece(4, 8, Step::Replaced(1, 3)),
    ];
    assert!(matches!(search(&pieces, BUDGET), Verdict::Violated(_)));
}

#[test]
fn a_search_that_is_too_long_says_so() {
    let mut pieces: Vec<Piece> = (1..30).map(|value| piece(1, None, Step::Wrote(value))).collect();
    pieces.push(piece(2, 3, Step::Saw(99)));
    assert_eq!(search(&pieces, 1_000), Verdict::Undecided);
}
