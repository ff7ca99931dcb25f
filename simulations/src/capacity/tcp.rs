//! What one TCP connection gets through a line.
use branchline_protocol::limits::WAN_IN_FLIGHT_BYTES;

/// Latencies that a connection's start costs, by LV08.
const START_LATENCIES: f64 = 13.01;
/// Share of a line's rate that is payload, by LV08.
const PAYLOAD_SHARE: f64 = 0.97;
/// What acknowledgements of the other direction cost, by LV08 with cross-traffic.
const ACKNOWLEDGEMENTS: f64 = 1.05;
/// Largest window of a connection, in bytes: SimGrid's default, and about what Linux grows a receive buffer to.
pub const WINDOW_BYTES: f64 = 4_194_304.0;
/// Payload of a full packet, in bytes.
const SEGMENT_BYTES: f64 = 1448.0;

/// Rate and start of one connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Connection {
    /// Payload, in bits per second.
    pub bits_per_second: f64,
    /// What passes before payload flows at this rate, in seconds.
    pub start_seconds: f64,
}

/// A connection over a line of this rate and one-way latency, by the model LV08 of SimGrid (Velho, Legrand, SIMUTools
/// 2009): 13.01 latencies to begin, then min(0.97 rate, window / round trip), less 5 % for acknowledgements.
pub fn lv08(line_bits_per_second: f64, latency_seconds: f64, window_bytes: f64) -> Connection {
    let line = PAYLOAD_SHARE * line_bits_per_second;
    let bits_per_second = line.min(window_limit(latency_seconds, window_bytes)) / ACKNOWLEDGEMENTS;
    Connection { bits_per_second, start_seconds: START_LATENCIES * latency_seconds }
}

/// A connection over a line whose rate is given as goodput: a request and its answer to begin.
pub fn goodput(bits_per_second: f64, latency_seconds: f64) -> Connection {
    let bits_per_second = bits_per_second.min(window_limit(latency_seconds, WINDOW_BYTES));
    Connection { bits_per_second, start_seconds: 2.0 * latency_seconds }
}

/// What a window allows, in bits per second.
pub fn window_limit(latency_seconds: f64, window_bytes: f64) -> f64 {
    8.0 * window_bytes / (2.0 * latency_seconds)
}

impl Connection {
    /// The same where packets are lost: what is lost is sent again, and the window follows the losses (Mathis et al.,
    /// 1997: segment / round trip * sqrt(3/2) / sqrt(loss)).
    pub fn with_loss(self, loss: f64, latency_seconds: f64) -> Self {
        let line = self.bits_per_second * (1.0 - loss);
        let window = SEGMENT_BYTES * libm::sqrt(1.5) / libm::sqrt(loss);
        let limit = if loss > 0.0 { window_limit(latency_seconds, window) } else { f64::INFINITY };
        Self { bits_per_second: line.min(limit), ..self }
    }

    /// The same where frames are asked for one by one, with [`WAN_IN_FLIGHT_BYTES`] under way at most or else one
    /// frame: between the last byte of a frame and the request for the next lies a round trip.
    pub fn asked_for(self, frames: u64, frame_bytes: u64, latency_seconds: f64) -> Self {
        let under_way = WAN_IN_FLIGHT_BYTES.div_ceil(frame_bytes).max(1);
        if frames <= under_way {
            return self;
        }
        let frame_bits = 8.0 * frame_bytes as f64;
        let turn_seconds = 2.0 * latency_seconds + frame_bits / self.bits_per_second;
        let limit = under_way as f64 * frame_bits / turn_seconds;
        Self { bits_per_second: self.bits_per_second.min(limit), ..self }
    }

    /// How long a transfer takes alone, in seconds.
    pub fn seconds(self, size_bytes: f64) -> f64 {
        self.start_seconds + 8.0 * size_bytes / self.bits_per_second
    }
}
