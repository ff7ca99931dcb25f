# shellcheck shell=sh
# ---- prelude: what every part below uses -------------------------------------------------------------------------------------
#
# How this script works. Each part looks at one thing and prints lines that begin with the section they belong to:
#
#     host <element .../>        module <module .../>        threshold <threshold .../>
#     command <command .../>     conflict <conflict .../>    item <item ...>
#
# and the end of the script puts them in order and prints one XML document. Nothing is installed, started, stopped or
# changed. The only file written is the one named by -o. Nothing is sent anywhere.

set -u
umask 077
LC_ALL=C
export LC_ALL
PATH="${PATH:-/usr/bin:/bin}:/usr/sbin:/sbin"
export PATH
unset CDPATH OMP_NUM_THREADS OMP_THREAD_LIMIT

root='/'         # what is surveyed
prefix=''        # the same without a slash at the end, empty for the machine itself
output=''        # where the descriptor goes, empty for standard output
part=''          # the unfinished output file
mode='discovery' # how thoroughly the signatures look

say() {
    printf 'branchline survey: %s\n' "$1" >&2
}

fail() {
    say "$1"
    exit 1
}

# ---- text: from whatever the machine holds to one clean XML attribute --------------------------------------------------------
#
# This library of awk functions is put in front of the small awk programs below.
#   clean(s, n)      at most n bytes; control characters become ?, and so does everything beyond ASCII unless it is valid UTF-8
#   attribute(k, v)  ' k="v"', escaped; nothing where v is empty
#   redact_url(s)    takes user and password out of URLs
#   redact(list, n)  takes secrets out of a command line of n arguments
#   item(...)        one finding of a signature with up to five details
text_functions='
function clean(s, limit,   rest, cut) {
    cut = length(s) > limit
    if (cut) s = substr(s, 1, limit)
    gsub(/[\001-\037\177]/, "?", s)
    if (s ~ /[\200-\377]/) {
        if (cut) sub(/[\300-\377][\200-\277]*$/, "", s)
        rest = s
        gsub(/[\302-\337][\200-\277]/, ".", rest)
        gsub(/\340[\240-\277][\200-\277]/, ".", rest)
        gsub(/[\341-\354\356][\200-\277][\200-\277]/, ".", rest)
        gsub(/\355[\200-\237][\200-\277]/, ".", rest)
        gsub(/\357[\200-\276][\200-\277]/, ".", rest)
        gsub(/\357\277[\200-\275]/, ".", rest)
        gsub(/\360[\220-\277][\200-\277][\200-\277]/, ".", rest)
        gsub(/[\361-\363][\200-\277][\200-\277][\200-\277]/, ".", rest)
        gsub(/\364[\200-\217][\200-\277][\200-\277]/, ".", rest)
        if (rest ~ /[\200-\377]/) gsub(/[\200-\377]/, "?", s)
    }
    return s
}
function escape(s) {
    gsub(/&/, "\\&amp;", s)
    gsub(/</, "\\&lt;", s)
    gsub(/>/, "\\&gt;", s)
    gsub(/"/, "\\&quot;", s)
    return s
}
function attribute(name, value,   limit) {
    limit = (name ~ /^(value|command|line|source|mount_point|root)$/) ? 512 : 256
    value = clean(value, limit)
    return value == "" ? "" : " " name "=\"" escape(value) "\""
}
function redact_url(s,   start) {
    start = index(s, "://")
    if (!start || !match(s, /@[^@]*$/) || RSTART < start) return s
    return substr(s, 1, start + 2) "[redacted]" substr(s, RSTART)
}
function secret_end(lower,   words, n, i, at, first) {
    n = split("passw passphrase passcode pwd token secret api-key api_key apikey access-key access_key private-key private_key credential authorization", words, " ")
    first = 0
    for (i = 1; i <= n; i++) {
        at = index(lower, words[i])
        if (at && (!first || at + length(words[i]) < first)) first = at + length(words[i])
    }
    if (match(lower, /(^|[-_])pass([=:]|$)/)) {
        at = RSTART + RLENGTH
        if (substr(lower, at - 1, 1) ~ /[=:]/) at--
        if (!first || at < first) first = at
    }
    return first
}
function redact_word(word,   end, rest, at) {
    word = redact_url(word)
    end = secret_end(tolower(word))
    if (end) {
        rest = substr(word, end)
        at = match(rest, /[=:]/)
        if (at && at < length(rest)) { dropped = 1; return substr(word, 1, end + at - 1) "[redacted]" }
        if (at || substr(word, 1, 1) == "-") expected = "secret"
        return word
    }
    if (word == "-p") { expected = "secret"; return word }
    if (word == "-u" || word == "--user" || word == "--proxy-user") { expected = "user"; return word }
    if (substr(word, 1, 2) == "-p") return "-p[redacted]"
    return word
}
function redact(list, n,   i, j, m, was, words, text, line) {
    expected = ""
    line = ""
    for (i = 1; i <= n; i++) {
        was = expected
        expected = ""
        if (was == "secret" && list[i] != "" && substr(list[i], 1, 2) != "--") {
            text = "[redacted]"
            if (tolower(list[i]) == "bearer" || tolower(list[i]) == "basic") expected = "secret"
        } else if (was == "user" && index(list[i], ":")) {
            text = substr(list[i], 1, index(list[i], ":")) "[redacted]"
        } else {
            m = split(list[i], words, " ")
            text = ""
            dropped = 0
            for (j = 1; j <= m && !dropped; j++) {
                was = expected
                expected = ""
                if (was == "secret" && substr(words[j], 1, 2) != "--") {
                    # After "key:" and before a quoted value it is not clear where the secret ends: all the rest goes.
                    if (words[j - 1] ~ /[=:]$/ || words[j] ~ /^["\047]/) dropped = 1
                    words[j] = "[redacted]"
                }
                else if (was == "user" && index(words[j], ":")) words[j] = substr(words[j], 1, index(words[j], ":")) "[redacted]"
                else words[j] = redact_word(words[j])
                text = text (j > 1 ? " " : "") words[j]
            }
        }
        line = line (i > 1 ? " " : "") text
        if (length(line) > 4096) break
    }
    return line
}
function decode_mount(s) {
    gsub(/\\040/, " ", s); gsub(/\\011/, "\t", s); gsub(/\\012/, "\n", s); gsub(/\\134/, "\\", s)
    return s
}
function fact(name, value) {
    value = attribute("value", redact_url(value))
    if (value != "") print "item           <fact name=\"" name "\"" value "/>"
}
function item(kind, n1, v1, n2, v2, n3, v3, n4, v4, n5, v5) {
    item_begin(kind)
    fact(n1, v1); fact(n2, v2); fact(n3, v3); fact(n4, v4); fact(n5, v5)
    item_end()
}
function item_begin(kind) { print "item         <item kind=\"" kind "\">" }
function item_end() { print "item         </item>" }
'

# text_awk PROGRAM [ARGUMENT...]: runs an awk program that uses the functions above.
text_awk() {
    text_program=$1
    shift
    awk -- "$text_functions$text_program" "$@"
}

# element SECTION INDENTATION NAME [ATTRIBUTE VALUE]...: one empty element; an attribute without a value is left out.
element() {
    text_awk 'BEGIN {
        line = ARGV[1] " " ARGV[2] "<" ARGV[3]
        for (i = 4; i < ARGC; i += 2) line = line attribute(ARGV[i], redact_url(ARGV[i + 1]))
        print line "/>"
    }' "$@"
}

# found KIND [NAME VALUE]...: one finding of a signature.
found() {
    text_awk 'BEGIN {
        item_begin(ARGV[1])
        for (i = 2; i < ARGC; i += 2) fact(ARGV[i], ARGV[i + 1])
        item_end()
    }' "$@"
}

# module NAME NEED SIGNATURE REASON: a module that should watch this host.
module() {
    element module '    ' module name "$1" need "$2" reason "$4" signature "$3"
}

# threshold MODULE NAME VALUE UNIT SIGNATURE REASON: a threshold that should differ from its default.
threshold() {
    element threshold '    ' threshold module "$1" name "$2" value "$3" unit "$4" reason "$6" signature "$5"
}

# command_planned LINE PURPOSE: a command that installation will run.
command_planned() {
    element command '      ' command line "$1" purpose "$2"
}

# conflict KIND SEVERITY SUBJECT REASON: something that installation may collide with.
conflict() {
    element conflict '      ' conflict kind "$1" severity "$2" subject "$3" reason "$4"
}

# list NAME COUNT BYTES [total]: makes "WEIGHT <element/>" lines one list of the host section, cut at the bounds.
list() {
    awk -v name="$1" -v count="$2" -v bytes="$3" -v total="${4:-}" '
        { weight = $1; sub(/^[0-9]+ /, ""); all += weight }
        n < count && size + length($0) < bytes { lines[++n] = $0; size += length($0) + 16; next }
        { dropped++ }
        END {
            if (total != "") attributes = sprintf(" total=\"%.0f\"", all)
            if (!n) { print "host     <" name attributes "/>" } else {
                print "host     <" name attributes ">"
                for (i = 1; i <= n; i++) print "host       " lines[i]
                print "host     </" name ">"
            }
            if (dropped) print "branchline survey: " dropped " entries beyond the bound of " name " are left out" | "cat >&2"
        }'
}

# ---- files: everything is read below the surveyed root, and never beyond a bound ---------------------------------------------

# inside PATH: prints the place of PATH below the surveyed root. A link that leads out of that root is not followed.
inside() {
    inside_path=$prefix$1
    if [ -n "$prefix" ]; then
        inside_links=0
        while [ -L "$inside_path" ]; do
            inside_links=$((inside_links + 1))
            [ "$inside_links" -le 16 ] || return 1
            inside_target=$(readlink "$inside_path") || return 1
            case $inside_target in
                /*) inside_path=$prefix$inside_target ;;
                *) inside_path=${inside_path%/*}/$inside_target ;;
            esac
        done
        inside_directory=$(cd -P "${inside_path%/*}/" 2>/dev/null && pwd -P) || return 1
        case $inside_directory/ in
            "$prefix"/*) inside_path=$inside_directory/${inside_path##*/} ;;
            *) return 1 ;;
        esac
    fi
    [ -e "$inside_path" ] && printf '%s\n' "$inside_path"
}

# exists PATH: says whether a file or directory is there.
exists() {
    inside "$1" >/dev/null
}

# names_in PATH: the names in a directory that do not begin with a dot, one a line, at most 256.
names_in() {
    names_path=$(inside "$1") || return 0
    [ -d "$names_path" ] || return 0
    for names_entry in "$names_path"/*; do
        [ -e "$names_entry" ] || continue
        printf '%s\n' "${names_entry##*/}"
    done | head -n 256
}

# read_text PATH [KIBIBYTES]: the content of a regular file, at most 1 MiB unless told otherwise.
read_text() {
    read_path=$(inside "$1") || return 0
    if [ -f "$read_path" ] && [ -r "$read_path" ]; then
        head -c "$((${2:-1024} * 1024))" <"$read_path" 2>/dev/null | tr '\000\015' '? '
    fi
}

# first_line PATH: the first line of a small file.
first_line() {
    read_text "$1" 4 | head -n 1
}

# value_of PATH KEY: the value of the last line KEY=value, without quotes.
value_of() {
    read_text "$1" 64 | awk -v key="$2" '
        index($0, key "=") == 1 {
            value = substr($0, length(key) + 2)
            sub(/ +$/, "", value)
            first = substr(value, 1, 1)
            if (first == "\"" || first == "\047") {
                value = substr(value, 2)
                if (substr(value, length(value)) == first) value = substr(value, 1, length(value) - 1)
                gsub(/\\"/, "\"", value)
            }
        }
        END { print substr(value, 1, 1024) }'
}

# hardware_text PATH: a file below /proc or /sys that tells of hardware. The machine's own serves where the surveyed root has none.
hardware_text() {
    if [ -z "$prefix" ] || exists "$1"; then
        read_text "$1" 4096
    elif [ -r "$1" ] && [ -f "$1" ]; then
        head -c 4194304 <"$1" 2>/dev/null | tr '\000' '?'
    fi
}

# is_running NAME...: says whether a process of one of the names runs, by the kernel's 15-character names.
is_running() {
    for running_name in "$@"; do
        case $running_names in
            *"
$running_name
"*) return 0 ;;
        esac
    done
    return 1
}

# state_of NAME...: "running" or "configured".
state_of() {
    if is_running "$@"; then printf 'running\n'; else printf 'configured\n'; fi
}
