//! Every number that bounds something, in one place, with the reason.

// survey

/// Most bytes of one descriptor document; longer ones are refused unread. A sealed survey of this size still fits one message.
pub const MAX_DESCRIPTOR_BYTES: usize = 1 << 20;
/// Deepest nesting of elements that the descriptor's reader follows; the format itself needs six levels.
pub const MAX_DESCRIPTOR_DEPTH: usize = 8;
/// Most characters of an ordinary value in a descriptor.
pub const MAX_SURVEY_LINE_CHARACTERS: usize = 256;
/// Most characters of a command line, a path or a signature's value in a descriptor.
pub const MAX_SURVEY_COMMAND_CHARACTERS: usize = 512;
/// Most characters of a name of a module, signature, fact or kind.
pub const MAX_SURVEY_IDENTIFIER_CHARACTERS: usize = 64;
/// Most interface addresses of one host.
pub const MAX_SURVEY_ADDRESSES: usize = 256;
/// Most disks of one host.
pub const MAX_SURVEY_DISKS: usize = 256;
/// Most local file systems of one host.
pub const MAX_SURVEY_FILESYSTEMS: usize = 128;
/// Most installed packages that are listed.
pub const MAX_SURVEY_PACKAGES: usize = 4096;
/// Most different processes that are listed.
pub const MAX_SURVEY_PROCESSES: usize = 1024;
/// Most listening ports that are listed.
pub const MAX_SURVEY_PORTS: usize = 1024;
/// Most signatures that one survey runs.
pub const MAX_SURVEY_SIGNATURES: usize = 32;
/// Most findings of one signature.
pub const MAX_SURVEY_ITEMS: usize = 128;
/// Most details of one finding.
pub const MAX_SURVEY_ITEM_FACTS: usize = 16;
/// Most modules that one survey recommends.
pub const MAX_SURVEY_MODULES: usize = 64;
/// Most thresholds that one survey recommends.
pub const MAX_SURVEY_THRESHOLDS: usize = 64;
/// Most commands that one survey announces.
pub const MAX_SURVEY_COMMANDS: usize = 32;
/// Most potential conflicts that one survey reports.
pub const MAX_SURVEY_CONFLICTS: usize = 64;
