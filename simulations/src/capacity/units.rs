//! Integers for time, rates and bytes.
//!
//! Time is in nanoseconds, rates are in thousandths of a bit per second, and a [`Volume`] is a rate times a time: a
//! bit is 10^12 of it, so that no rounding adds up over a long transfer.

/// Nanoseconds after the rollout's start.
pub(crate) type Time = u64;
/// Thousandths of a bit per second.
pub(crate) type Rate = u64;
/// What crosses a line: rate times nanoseconds.
pub(crate) type Volume = u128;

/// A time that never comes.
pub(crate) const NEVER: Time = u64::MAX;
pub(crate) const SECOND: Time = 1_000_000_000;
const VOLUME_PER_BYTE: Volume = 8_000_000_000_000;

/// Seconds as a time; at most what 64 bits hold.
pub(crate) fn time(seconds: f64) -> Time {
    // A conversion from floats saturates.
    libm::round(seconds * 1e9) as Time
}

/// A time in seconds.
pub(crate) fn seconds(time: Time) -> f64 {
    time as f64 / 1e9
}

/// Bits per second as a rate; at least the smallest.
pub(crate) fn rate(bits_per_second: f64) -> Rate {
    (libm::round(bits_per_second * 1e3) as Rate).max(1)
}

/// A rate in bits per second.
pub(crate) fn bits_per_second(rate: Rate) -> f64 {
    rate as f64 / 1e3
}

/// What `bytes` are as a volume.
pub(crate) fn volume(bytes: u64) -> Volume {
    Volume::from(bytes) * VOLUME_PER_BYTE
}

/// Whole bytes of a volume.
pub(crate) fn bytes(volume: Volume) -> u64 {
    u64::try_from(volume / VOLUME_PER_BYTE).unwrap_or(u64::MAX)
}

/// How long a line of this rate takes for `volume`, rounded up.
pub(crate) fn duration(volume: Volume, rate: Rate) -> Time {
    // Volumes of less than 2 MB fit 64 bits, where a division is several times as fast.
    match u64::try_from(volume) {
        Ok(volume) => volume.div_ceil(rate),
        Err(_) => Time::try_from(volume.div_ceil(Volume::from(rate))).unwrap_or(NEVER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_fit_together() {
        assert_eq!(duration(volume(1_250_000), rate(1e7)), SECOND);
        assert_eq!(duration(volume(125_000_000), rate(1e9)), SECOND);
        assert_eq!(bytes(volume(77)), 77);
        assert_eq!(time(1.5), 1_500_000_000);
        assert_eq!(duration(volume(1), 1), 8_000_000_000_000);
        assert_eq!(bits_per_second(rate(1.544e6)), 1.544e6);
    }
}
