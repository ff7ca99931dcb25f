use super::*;

const INSIDE: [u8; 4] = [127, 1, 0, 10];

fn rules() -> Rules {
    let batch = AddressBatch { first: Ipv4Addr::new(127, 2, 0, 1), last: Ipv4Addr::new(127, 2, 0, 9) };
    Rules { interface: 2, mapped: vec![batch], rows_max: 3, read_only: false, only_in_steps: false }
}

fn object(column: u32, index: u32) -> Vec<u32> {
    let mut object = NAT_MIB.to_vec();
    object.extend([4, 1, column, 2, index]);
    object
}

fn set(rules: &Rules, rows: &mut Rows, cells: &[(u32, u32, MibValue)]) -> Result<Verdict, SetTestError> {
    let mut collected = Vec::new();
    let mut verdict = Verdict::Incomplete;
    for (column, index, value) in cells {
        collected.push(rules.cell(&object(*column, *index), Some(value.clone()))?);
        verdict = rules.judge(rows, &collected)?;
    }
    if let Verdict::Good(after) = &verdict {
        rows.clone_from(after);
    }
    Ok(verdict)
}

fn columns(index: u32, inside: [u8; 4], mapped: [u8; 4]) -> Vec<(u32, u32, MibValue)> {
    let octets = |column, octets: &[u8]| (column, index, MibValue::Octets(octets.to_vec()));
    let integer = |column| (column, index, MibValue::Integer(1));
    vec![
        octets(2, b"branchline"),
        integer(3),
        octets(4, &[0x30]),
        integer(5),
        octets(6, &inside),
        octets(7, &inside),
        integer(10),
        octets(11, &mapped),
        octets(12, &mapped),
        octets(15, &[0xf0]),
    ]
}

fn with_status(index: u32, inside: [u8; 4], mapped: [u8; 4], status: i32) -> Vec<(u32, u32, MibValue)> {
    let mut cells = columns(index, inside, mapped);
    cells.push((STATUS, index, MibValue::Integer(status)));
    cells
}

fn status(index: u32, status: i32) -> Vec<(u32, u32, MibValue)> {
    vec![(STATUS, index, MibValue::Integer(status))]
}

/// The situations of the lab's table, with what the wire says.
#[test]
fn errors_are_those_of_a_real_router() {
    use SetTestError::{
        InconsistentName, InconsistentValue, NoCreation, NotWritable, ResourceUnavailable, WrongLength, WrongType,
        WrongValue,
    };
    let rules = rules();
    let mut rows = Rows::new();
    let made = set(&rules, &mut rows, &with_status(1, INSIDE, [127, 2, 0, 1], CREATE_AND_GO));
    assert!(matches!(made, Ok(Verdict::Good(_))), "{made:?}");
    let other = [127, 1, 0, 11];
    let octets = |octets: &[u8]| MibValue::Octets(octets.to_vec());
    let mut missing = columns(2, other, [127, 2, 0, 2]);
    missing.truncate(3);
    missing.push((STATUS, 2, MibValue::Integer(ACTIVE)));
    let mut with_port = columns(2, other, [127, 2, 0, 2]);
    with_port.extend([(8, 2, MibValue::Unsigned(80)), (STATUS, 2, MibValue::Integer(CREATE_AND_GO))]);
    let cases = [
        ("the row exists", with_status(1, INSIDE, [127, 2, 0, 1], CREATE_AND_GO), InconsistentValue),
        ("modified while active", vec![(6, 1, octets(&other))], InconsistentValue),
        ("mapped address twice", with_status(2, other, [127, 2, 0, 1], CREATE_AND_GO), InconsistentValue),
        ("inside address twice", with_status(2, INSIDE, [127, 2, 0, 2], CREATE_AND_GO), InconsistentValue),
        ("outside the batch", with_status(2, other, [127, 3, 0, 1], CREATE_AND_GO), InconsistentValue),
        ("a column is missing", missing, InconsistentValue),
        ("a port", with_port, InconsistentValue),
        ("active without a row", status(9, ACTIVE), InconsistentValue),
        ("notReady is never written", status(1, NOT_READY), WrongValue),
        ("wrong type", vec![(3, 1, octets(b"x"))], WrongType),
        ("wrong length", vec![(6, 1, octets(&[127, 0, 0]))], WrongLength),
        ("dynamic rows", vec![(3, 1, MibValue::Integer(2))], WrongValue),
        ("a counter", vec![(19, 1, MibValue::Unsigned(1))], NotWritable),
    ];
    for (what, cells, expected) in cases {
        assert_eq!(set(&rules, &mut rows, &cells), Err(expected), "{what}");
    }
    let elsewhere = |column| {
        let mut object = NAT_MIB.to_vec();
        object.extend([4, 1, column, 99, 1]);
        rules.cell(&object, Some(MibValue::Integer(1))).map(|_| ())
    };
    assert_eq!((elsewhere(3), elsewhere(STATUS)), (Err(InconsistentName), Err(NoCreation)), "unknown ifIndex");
    for index in [2, 3] {
        assert!(set(&rules, &mut rows, &status(index, CREATE_AND_WAIT)).is_ok());
    }
    assert_eq!(set(&rules, &mut rows, &status(4, CREATE_AND_WAIT)), Err(ResourceUnavailable), "the table is full");
}

#[test]
fn a_row_may_be_made_in_steps_and_destroyed_twice() {
    let rules = Rules { only_in_steps: true, ..rules() };
    let mut rows = Rows::new();
    let mapped = [127, 2, 0, 1];
    assert_eq!(set(&rules, &mut rows, &with_status(1, INSIDE, mapped, CREATE_AND_GO)), Err(SetTestError::WrongValue));
    for (cells, expected) in [
        (status(1, CREATE_AND_WAIT), NOT_READY),
        (columns(1, INSIDE, mapped), NOT_IN_SERVICE),
        (status(1, ACTIVE), ACTIVE),
    ] {
        set(&rules, &mut rows, &cells).unwrap();
        assert_eq!(status_of(&rows[&(2, 1)]), expected);
    }
    assert_eq!(mappings(&rows), [(Ipv4Addr::from(mapped), Ipv4Addr::from(INSIDE))].into());
    for _ in 0..2 {
        set(&rules, &mut rows, &status(1, DESTROY)).unwrap();
        assert_eq!(rows, Rows::new());
    }
}

#[test]
fn a_status_that_comes_first_waits_for_the_columns() {
    let rules = rules();
    let mut rows = Rows::new();
    let mut cells = with_status(1, INSIDE, [127, 2, 0, 1], CREATE_AND_GO);
    cells.rotate_right(1);
    assert!(matches!(set(&rules, &mut rows, &cells[..5]), Ok(Verdict::Incomplete)));
    assert!(matches!(set(&rules, &mut rows, &cells), Ok(Verdict::Good(_))));
    assert_eq!(view(&rows).len(), 16 + 4 + 4 + 1, "columns, counters, binding, number of bindings");
}
