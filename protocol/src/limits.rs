//! Every bound of every queue, table and message, in one place.
//!
//! Where one bound must lie below another, a constant assertion at the end of the file says so.

// Refusals.
/// Longest reason of a refusal, in bytes.
pub const REFUSAL_TEXT_BYTES_MAX: usize = 1024;

// Wire.
/// Longest message on the control plane, in bytes. Manifests and signed catalogues are the largest.
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Longest message on the bulk plane, in bytes: one frame and its header.
pub const BULK_MESSAGE_BYTES_MAX: usize = CHUNK_BYTES_MAX + (1 << 20);
/// Longest message on the installer's socket, in bytes.
pub const INSTALLER_MESSAGE_BYTES_MAX: usize = 16 << 20;

// Content.
/// Longest raw chunk of an image, in bytes; frames may be a little longer where data does not compress.
pub const CHUNK_BYTES_MAX: usize = 4 << 20;
/// Longest image that is made of a payload, in bytes: what decompresses into more is a bomb.
pub const PAYLOAD_RAW_BYTES_MAX: u64 = 8 << 30;
/// Most memory of a payload's decompressor, in bytes.
pub const DECODER_BYTES_MAX: usize = 128 << 20;
/// Most chunks in one manifest.
pub const MANIFEST_CHUNKS_MAX: usize = 65_536;
/// Chunks of images below 512 MiB, in bytes.
pub const CHUNK_BYTES_SMALL: usize = 64 << 10;
/// Chunks of images below 1 GiB, in bytes.
pub const CHUNK_BYTES_MEDIUM: usize = 128 << 10;
/// Chunks of longer images, in bytes.
pub const CHUNK_BYTES_LARGE: usize = 256 << 10;
/// Longest frame, in bytes: what zstd makes of a chunk that does not compress.
pub const FRAME_BYTES_MAX: usize = CHUNK_BYTES_MAX + (64 << 10);
/// Longest encoded manifest, in bytes.
pub const MANIFEST_BYTES_MAX: usize = MANIFEST_CHUNKS_MAX * 80;
/// Longest name of an original file, in bytes.
pub const FILE_NAME_BYTES_MAX: usize = 255;
/// Compression level of frames: a pack is built once and crosses many thin lines.
pub const PACK_ZSTD_LEVEL: i32 = 12;
/// Most bytes that may be leased and not yet held by a second living node: B of R70.
pub const LEASED_BYTES_DEFAULT: u64 = 4 << 20;

// Patches.
/// Most memory that applying a patch takes, in bytes, whatever the images' lengths.
pub const PATCH_MEMORY_BYTES_MAX: usize = 256 << 20;
/// Longest header of a patch, in bytes.
pub const PATCH_HEADER_BYTES_MAX: usize = 64 << 10;
/// Ranges of the base that the decoder of a patch's extra bytes is primed with.
pub const PATCH_PRESET_RANGES_MAX: usize = 2048;
/// Bytes of these ranges. A decoder of LZMA2 copies them into its window, and they go before anything else is made; one
/// of zstd refers to them, and its window is shorter.
pub const PATCH_PRESET_BYTES_MAX: usize = 104 << 20;
/// How far back the decoder of a patch's extra bytes looks, in bytes.
pub const PATCH_EXTRA_WINDOW_BYTES_MAX: usize = 120 << 20;
/// How far back the decoder of a patch's differences looks, in bytes.
pub const PATCH_DIFFERENCE_WINDOW_BYTES: usize = 16 << 20;
/// How far back each decoder of a patch's numbers looks, in bytes.
pub const PATCH_NUMBER_WINDOW_BYTES: usize = 1 << 20;
/// What applying a patch moves at a time, in bytes.
pub const PATCH_BUFFER_BYTES: usize = 64 << 10;

// Swarm.
/// Packs that one node's swarm knows.
pub const SWARM_PACKS_MAX: usize = 1024;
/// Packs that one neighbour may speak of.
pub const PACKS_PER_PEER_MAX: usize = 1024;
/// Frames in one announcement.
pub const HAVE_FRAMES_MAX: usize = 4096;
/// Bytes that may be under way from one neighbour inside the site; one frame always may.
pub const LAN_IN_FLIGHT_BYTES: u64 = 64 << 10;
/// Bytes that may be under way from the origin.
pub const WAN_IN_FLIGHT_BYTES: u64 = 1 << 20;
/// Bytes that may be under way or at the store, over all packs.
pub const STORING_BYTES_MAX: u64 = 16 << 20;
/// Frames that one node serves at a time: as many as it has neighbours by the site's graph, and two more. Where fewer are,
/// neighbours that take long keep others waiting.
pub const UPLOAD_SLOTS: usize = BULK_NEIGHBOURS_MAX + 2;
/// Neighbours to which the first holder pushes at a time; more would take too long at [`HOST_RATE_BITS_PER_SECOND_MIN`].
pub const PUSH_SLOTS: usize = 13;
/// Most slots of either kind for a node whose link is much faster than its neighbours'.
pub const LINK_SLOTS_MAX: usize = 64;
/// Announcements are gathered for at most this long, in milliseconds.
pub const ANNOUNCE_MILLISECONDS: u64 = 20;
/// Frames that wait for a slot.
pub const UPLOAD_QUEUE_MAX: usize = 256;
/// Frames of one neighbour that wait for a slot.
pub const UPLOAD_QUEUE_PER_PEER_MAX: usize = 16;
/// Peers that are remembered for serving corrupt frames.
pub const BANS_MAX: usize = 1024;
/// Sites times packs that an origin's fence remembers.
pub const FENCE_RECORDS_MAX: usize = 1 << 20;

// Updates.
/// Updates of which one station remembers what crosses the line: as many as one catalogue can offer patches for.
pub const CROSSING_DECISIONS_MAX: usize = CATALOGUE_PATCHES_MAX;
/// Packs of which one crossing desk remembers that the station keeps them; beyond it the oldest that is no update goes.
pub const CROSSING_KEPT_MAX: usize = 2 * CATALOGUE_PATCHES_MAX;
/// Wishes for leases that wait at one station until it is decided what crosses; beyond it they are answered "busy".
pub const CROSSING_WISHES_MAX: usize = 16_384;

// Accounts.
/// Neighbours of one node in its account of one pack.
pub const ACCOUNT_LINES_MAX: usize = 4_096;
/// Leases of one pack and site that the origin remembers with what was sent by them.
pub const LEASE_SPANS_MAX: usize = 32;

// Rates.
/// Highest rate that can be written, in bits per second.
pub const RATE_BITS_PER_SECOND_MAX: u64 = 1_000_000_000_000;
/// Least rate of a line or a rollout that is not off, in bits per second: a frame must pass within the time after which a
/// silent origin is given up.
pub const LINE_RATE_BITS_PER_SECOND_MIN: u64 = 128_000;
/// Least rate of a node, in bits per second: frames of 64 KiB in all of its slots must pass within the time after which a
/// silent neighbour is given up. Longer ones need more (`docs/src/operate/bandwidth.md`).
pub const HOST_RATE_BITS_PER_SECOND_MIN: u64 = 4_000_000;
/// Windows of one schedule.
pub const SCHEDULE_WINDOWS_MAX: usize = 64;
/// Rollouts with limits of their own.
pub const ROLLOUT_LIMITS_MAX: usize = 64;
/// Changes of a time zone's offset that are known ahead.
pub const ZONE_OFFSETS_MAX: usize = 64;
/// Largest delay that may make a background transfer yield, in milliseconds (RFC 6817: at most 100).
pub const BACKGROUND_DELAY_MILLISECONDS_MAX: u32 = 100;

// Signed documents.
/// Longest signed body of any document except the catalogue, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 256 << 10;
/// Longest signed catalogue, in bytes.
pub const CATALOGUE_BYTES_MAX: usize = 4 << 20;
/// Longest text of a signature over a file in bytes; ours have 330 at most.
pub const FILE_SIGNATURE_TEXT_BYTES_MAX: usize = 1024;
/// Most files of a release.
pub const RELEASED_FILES_MAX: usize = 32;
/// Longest join token, in characters.
pub const TOKEN_TEXT_BYTES_MAX: usize = 4096;

// Sites.
/// Members of one site where the charter names no other limit.
pub const MEMBERS_DEFAULT: u32 = 1_000;
/// Most members that a charter may allow.
pub const MEMBERS_MAX: u32 = 100_000;
/// Simultaneous sessions of a station where the charter names no other limit (R22).
pub const SESSIONS_DEFAULT: u32 = 100;
/// Address prefixes of one site.
pub const PREFIXES_MAX: usize = 64;
/// Former stations that a charter remembers.
pub const FORMER_STATIONS_MAX: usize = 16;
/// Electors of one site.
pub const ELECTORS_MAX: usize = 15;
/// Keys of one kind in a charter.
pub const KEYS_MAX: usize = 16;
/// Open join tokens of one station.
pub const TOKENS_MAX: usize = 10_000;

// Mesh.
/// Neighbours of a host on the control plane.
pub const CONTROL_NEIGHBOURS_MAX: usize = 12;
/// Neighbours of a host on the bulk plane.
pub const BULK_NEIGHBOURS_MAX: usize = 10;
/// Neighbours inside the site that a node accepts before it closes on whoever is none by the site's graph.
pub const BULK_NEIGHBOURS_ACCEPTED_MAX: usize = 64;
/// Connections of one node on the bulk plane, the accepted ones included.
pub const BULK_CONNECTIONS_MAX: usize = 1024;
/// Bulk connections that have not shown an accepted hello yet.
pub const BULK_HANDSHAKES_MAX: usize = 64;
/// Bulk connections for which there is no place and that are told so at a time; more are closed without a word.
pub const BULK_FAREWELLS_MAX: usize = 64;
/// Messages that wait for one bulk connection; a peer that lets more pile up is cut.
pub const BULK_QUEUE_MAX: usize = 1024;
/// Bytes of one bulk connection that the kernel may hold unsent (`TCP_NOTSENT_LOWAT`): what is decided now must not queue
/// behind much that was decided earlier.
pub const BULK_UNSENT_BYTES_MAX: u32 = 32 << 10;
/// Bytes of received frames, over all connections, that wait for the swarm machine; readers pause beyond it.
pub const BULK_INBOX_BYTES_MAX: usize = 8 << 20;
/// Bytes of frames that a node keeps in memory while more come, for those who ask for them next.
pub const RECENT_FRAMES_BYTES: usize = 8 << 20;
/// Frames that one connection has read at once, while as many wait to be sent. A neighbour of the site has one or two on order,
/// the inlet as many as its window to headquarters holds.
pub const FRAMES_READ_AHEAD: usize = 4;
/// Threads of one node that read, hash and write frames.
pub const STORE_THREADS: usize = 2;
/// Peers times packs that one node's accounts tell apart.
pub const TRANSFER_RECORDS_MAX: usize = 65_536;
/// Peer records in one answer of a peer exchange.
pub const PEER_RECORDS_MAX: usize = 64;

// Sessions.
/// Events in one report of a host.
pub const REPORT_EVENTS_MAX: usize = 256;
/// Longest text of one event (captured installer output is cut into pieces of this length), in bytes.
pub const EVENT_TEXT_BYTES_MAX: usize = 8 << 10;
/// Longest sealed survey, in bytes.
pub const SEALED_SURVEY_BYTES_MAX: usize = 2 << 20;
/// Events of a host that wait for its station; beyond it progress and output are cut, terminal events never.
pub const EVENT_BUFFER_EVENTS_MAX: usize = 4_096;
/// Bytes of text in the events of a host that wait for its station.
pub const EVENT_BUFFER_BYTES_MAX: usize = 4 << 20;
/// The newest events that a host shows its own operator (R83).
pub const HOST_EVENTS_SHOWN_MAX: usize = 64;
/// First wait before a host repeats its report or a station its directive, in seconds; doubled with each repetition.
pub const DIALOGUE_RETRY_SECONDS: u64 = 1;
/// Longest wait before either is repeated while it is not answered, in seconds.
pub const DIALOGUE_RETRY_SECONDS_MAX: u64 = 30;
/// Time between two reports of a host that has nothing new to say, in seconds.
pub const REPORT_KEEPALIVE_SECONDS: u64 = 60;
/// Wait before a host tries again what failed for a passing reason (a survey, a check), in seconds.
pub const HOST_WORK_RETRY_SECONDS: u64 = 10;
/// Packs of one plan.
pub const PLAN_PACKS_MAX: usize = 256;
/// Longest HTML report of one session, in bytes.
pub const REPORT_HTML_BYTES_MAX: usize = 160 << 10;
/// Profiles in one report of a site; the rest follows in the next.
pub const SITE_REPORT_PROFILES_MAX: usize = 32;
/// Approvals, and probes, that one report of a site asks for; the rest follows when these are answered.
pub const SITE_REPORT_REQUESTS_MAX: usize = 256;
/// Shortest time between two reports of a site, in seconds.
pub const SITE_REPORT_SECONDS_MIN: u64 = 1;
/// Time between two reports of a site while an answer of headquarters is waited for, in seconds.
pub const SITE_REPORT_WAITING_SECONDS: u64 = 5;
/// Time between two reports of a site that waits for nothing, in seconds.
pub const SITE_REPORT_IDLE_SECONDS: u64 = 60;
/// After this a withdrawn host that has not confirmed is revoked all the same, in seconds.
pub const WITHDRAW_PATIENCE_SECONDS: u64 = 600;
/// A host that shows two addresses in turns within this time is two machines with one identity (R99), in seconds.
pub const DUPLICATE_WINDOW_SECONDS: u64 = 300;
/// Silence of a host that holds a slot, after which people are told, in seconds.
pub const SLOT_SILENCE_SECONDS: u64 = 900;
/// Events of one session that a station keeps; beyond it progress and output are cut, terminal events never.
pub const SESSION_EVENTS_MAX: usize = 16_384;
/// Nodes that should hold each sealed survey (R49).
pub const SURVEY_REPLICAS: usize = 3;

/// Warnings about one host that a station keeps until a person has seen them.
pub const HOST_WARNINGS_MAX: usize = 4;

// Headquarters.
/// How long headquarters holds the answer to a site that waits for a decision or a probe, in seconds: below the pause
/// between two reports of such a site, so that there is nearly always an answer that can be given at once.
pub const SITE_ANSWER_HOLD_SECONDS: u64 = 4;
/// Sites that one headquarters serves.
pub const HEADQUARTERS_SITES_MAX: usize = 20_000;
/// Sessions of one site whose requests and profiles headquarters keeps, generations included.
pub const HEADQUARTERS_SESSIONS_MAX: usize = 4 * MEMBERS_MAX as usize;
/// Probes that headquarters carries out at once; others wait for the repetition of the wish.
pub const HEADQUARTERS_PROBES_MAX: usize = 256;
/// A delay is looked at this often at least, in seconds, since the wall clock by which it ends may be set.
pub const DELAY_LOOK_SECONDS: u64 = 60;
/// Ports of one host that are probed.
pub const PROBE_PORTS_MAX: usize = 64;
/// Ports of one host that no package declares and that are tried as well (R94).
pub const PROBE_UNDECLARED_PORTS_MAX: usize = 256;
/// Tries of undeclared ports that headquarters has under way at once, over all hosts.
pub const HEADQUARTERS_UNDECLARED_TRIES_MAX: usize = 256;

// Survey.
/// Most bytes of one descriptor document; longer ones are refused unread. A sealed survey of this size still fits one message.
pub const DESCRIPTOR_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of elements that the descriptor's reader follows; the format itself needs six levels.
pub const DESCRIPTOR_DEPTH_MAX: usize = 8;
/// Most characters of an ordinary value in a descriptor.
pub const SURVEY_LINE_CHARACTERS_MAX: usize = 256;
/// Most characters of a command line, a path or a signature's value in a descriptor.
pub const SURVEY_COMMAND_CHARACTERS_MAX: usize = 512;
/// Most characters of a name of a module, signature, fact or kind.
pub const SURVEY_IDENTIFIER_CHARACTERS_MAX: usize = 64;
/// Most interface addresses of one host.
pub const SURVEY_ADDRESSES_MAX: usize = 256;
/// Most disks of one host.
pub const SURVEY_DISKS_MAX: usize = 256;
/// Most local file systems of one host.
pub const SURVEY_FILESYSTEMS_MAX: usize = 128;
/// Most installed packages that are listed.
pub const SURVEY_PACKAGES_MAX: usize = 4096;
/// Most different processes that are listed.
pub const SURVEY_PROCESSES_MAX: usize = 1024;
/// Most listening ports that are listed.
pub const SURVEY_PORTS_MAX: usize = 1024;
/// Most signatures that one survey runs.
pub const SURVEY_SIGNATURES_MAX: usize = 32;
/// Most findings of one signature.
pub const SURVEY_ITEMS_MAX: usize = 128;
/// Most details of one finding.
pub const SURVEY_ITEM_FACTS_MAX: usize = 64;
/// Most modules that one survey recommends.
pub const SURVEY_MODULES_MAX: usize = 64;
/// Most thresholds that one survey recommends.
pub const SURVEY_THRESHOLDS_MAX: usize = 64;
/// Most commands that one survey announces.
pub const SURVEY_COMMANDS_MAX: usize = 32;
/// Most potential conflicts that one survey reports.
pub const SURVEY_CONFLICTS_MAX: usize = 64;

// Catalogue and plan.
/// Patches in one catalogue.
pub const CATALOGUE_PATCHES_MAX: usize = 4096;
/// Packages in one catalogue.
pub const CATALOGUE_PACKAGES_MAX: usize = 1024;
/// Modules, thresholds, conflicts, files, steps or ports of one package, each.
pub const PACKAGE_PARTS_MAX: usize = 256;
/// Longest `package.toml`, in bytes.
pub const PACKAGE_DEFINITION_BYTES_MAX: usize = 128 << 10;
/// Wishes in one site policy.
pub const POLICY_WISHES_MAX: usize = 1024;
/// Longest text of one rule, in bytes.
pub const RULE_TEXT_BYTES_MAX: usize = 1024;
/// Nodes in the syntax tree of one rule.
pub const RULE_NODES_MAX: usize = 256;
/// Longest text that one rule may give, in bytes.
pub const RULE_RESULT_BYTES_MAX: usize = 16 << 10;
/// Longest file that a template may make, in bytes.
pub const CONFIGURATION_FILE_BYTES_MAX: usize = 128 << 10;
/// Most explanations in one plan.
pub const EXPLANATIONS_MAX: usize = 4096;
/// Longest plan in JSON, in bytes; it must fit a message to the installer.
pub const PLAN_BYTES_MAX: usize = 4 << 20;

const _: () = assert!(PAYLOAD_RAW_BYTES_MAX <= CHUNK_BYTES_MAX as u64 * MANIFEST_CHUNKS_MAX as u64);
const _: () = assert!(2 * PATCH_PRESET_BYTES_MAX < PATCH_MEMORY_BYTES_MAX);
// Room for a decoder that is moved while it grows past its preset.
const _: () = assert!(
    PATCH_PRESET_BYTES_MAX
        + PATCH_EXTRA_WINDOW_BYTES_MAX
        + PATCH_DIFFERENCE_WINDOW_BYTES
        + 4 * PATCH_NUMBER_WINDOW_BYTES
        + (8 << 20)
        < PATCH_MEMORY_BYTES_MAX
);
const _: () = assert!(PATCH_PRESET_RANGES_MAX * 20 + 1024 < PATCH_HEADER_BYTES_MAX);
const _: () = assert!(PLAN_BYTES_MAX < INSTALLER_MESSAGE_BYTES_MAX);
const _: () = assert!(PACKAGE_DEFINITION_BYTES_MAX < CATALOGUE_BYTES_MAX);
const _: () = assert!(RULE_RESULT_BYTES_MAX < CONFIGURATION_FILE_BYTES_MAX);
const _: () = assert!(DOCUMENT_BYTES_MAX < CATALOGUE_BYTES_MAX);
const _: () = assert!(CATALOGUE_BYTES_MAX < CONTROL_MESSAGE_BYTES_MAX);
const _: () = assert!(SEALED_SURVEY_BYTES_MAX < CONTROL_MESSAGE_BYTES_MAX);
const _: () = assert!(REPORT_EVENTS_MAX * EVENT_TEXT_BYTES_MAX < CONTROL_MESSAGE_BYTES_MAX);
const _: () = assert!(MANIFEST_BYTES_MAX < CONTROL_MESSAGE_BYTES_MAX);
const _: () = assert!(MANIFEST_CHUNKS_MAX * 72 + 1024 < MANIFEST_BYTES_MAX);
const _: () = assert!(CHUNK_BYTES_LARGE <= CHUNK_BYTES_MAX && CHUNK_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX < BULK_MESSAGE_BYTES_MAX);
const _: () = assert!(HAVE_FRAMES_MAX * 4 + 64 < BULK_MESSAGE_BYTES_MAX);
const _: () = assert!(CATALOGUE_PATCHES_MAX < CROSSING_KEPT_MAX);
const _: () = assert!(UPLOAD_QUEUE_PER_PEER_MAX <= UPLOAD_QUEUE_MAX);
const _: () = assert!(SWARM_PACKS_MAX < u16::MAX as usize);
const _: () = assert!(BULK_CONNECTIONS_MAX < u16::MAX as usize);
const _: () = assert!(UPLOAD_SLOTS <= LINK_SLOTS_MAX && PUSH_SLOTS <= LINK_SLOTS_MAX);
const _: () = assert!(LINK_SLOTS_MAX < u16::MAX as usize);
const _: () = assert!(CHUNK_BYTES_MAX as u64 * 2 < STORING_BYTES_MAX);
const _: () = assert!(MANIFEST_CHUNKS_MAX / 8 < BULK_MESSAGE_BYTES_MAX);
const _: () = assert!(EVENT_BUFFER_EVENTS_MAX >= REPORT_EVENTS_MAX && SESSION_EVENTS_MAX >= EVENT_BUFFER_EVENTS_MAX);
const _: () = assert!(SITE_REPORT_PROFILES_MAX * REPORT_HTML_BYTES_MAX < CONTROL_MESSAGE_BYTES_MAX / 4 * 3);
const _: () = assert!(SITE_ANSWER_HOLD_SECONDS < SITE_REPORT_WAITING_SECONDS);
const _: () = assert!((PROBE_PORTS_MAX + PROBE_UNDECLARED_PORTS_MAX) * 64 < DOCUMENT_BYTES_MAX);
const _: () = assert!(MANIFEST_CHUNKS_MAX * 80 < CONTROL_MESSAGE_BYTES_MAX);
const _: () = assert!(CHUNK_BYTES_MAX < BULK_MESSAGE_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX < BULK_INBOX_BYTES_MAX);
const _: () = assert!(SESSIONS_DEFAULT <= MEMBERS_DEFAULT && MEMBERS_DEFAULT <= MEMBERS_MAX);
const _: () = assert!(SURVEY_REPLICAS <= CONTROL_NEIGHBOURS_MAX);
const _: () = assert!(DESCRIPTOR_BYTES_MAX < SEALED_SURVEY_BYTES_MAX);

// Router and addresses.
/// Most rows that are read of one router's NAT table; a router with more is refused, not half read.
pub const NAT_TABLE_ROWS_MAX: usize = 65_536;
/// Most batches that one site may hold.
pub const ADDRESS_GRANTS_MAX: usize = 256;
/// Most addresses in one batch.
pub const ADDRESS_BATCH_ADDRESSES_MAX: u64 = 65_536;
/// Longest machine identifier, in bytes.
pub const MACHINE_IDENTIFIER_BYTES_MAX: usize = 128;
/// Most hosts that wait for a mapped address because none is free.
pub const ADDRESS_WAITING_MAX: usize = 4_096;
/// How long a SET of SNMPv3 may be under way and still be accepted, in seconds (RFC 3414 section 2.2.3).
pub const SNMP_SET_LIFETIME_SECONDS: u64 = 150;
/// Time between two reads of the router's table, in seconds (R112).
pub const ROUTER_READ_INTERVAL_SECONDS: u64 = 60;
/// Longest wait between two attempts at a router that does not work, in seconds.
pub const ROUTER_RETRY_SECONDS_MAX: u64 = 60;
/// Longest time that one operation of a router's driver may take, in seconds; a driver gives up earlier.
pub const ROUTER_OPERATION_SECONDS_MAX: u64 = 60;
/// How long a mapped address rests before another host may have it, in seconds.
pub const ADDRESS_REST_SECONDS: u64 = 600;

// A creation that arrives late must be found and removed by a read before its address is given to another host.
const _: () = assert!(
    ADDRESS_REST_SECONDS
        > SNMP_SET_LIFETIME_SECONDS
            + ROUTER_READ_INTERVAL_SECONDS
            + ROUTER_RETRY_SECONDS_MAX
            + 2 * ROUTER_OPERATION_SECONDS_MAX
);
const _: () = assert!(DESCRIPTOR_BYTES_MAX < SEALED_SURVEY_BYTES_MAX);
