# shellcheck shell=sh
# ---- postlude: options, order, output ----------------------------------------------------------------------------------------

help() {
    cat <<'TEXT'
Usage: sh survey.sh [-o FILE] [--root DIR]

Looks at this machine and describes it in one XML document with four sections: the host; the modules that should watch it; thresholds
that should differ from their defaults; what an installation will run and may collide with.

It needs no root, changes nothing, sends nothing, and writes only what -o names. Passwords and tokens on command lines of running
programs are taken out.

  -o FILE      write the descriptor to FILE, all or nothing (otherwise: to standard output)
  --root DIR   survey the system whose root directory is DIR, such as a mounted disk
  --help       show this text
  --version    show the version of this script and the BLAKE3 hash of its body

Exit codes: 0 done; 1 it failed, and said why on standard error; 2 an option was wrong.
TEXT
}

usage_error() {
    say "$1; --help shows how to use it"
    exit 2
}

options() {
    while [ $# -gt 0 ]; do
        case $1 in
            -o | --root)
                if [ $# -lt 2 ] || [ -z "$2" ]; then usage_error "$1 needs a value"; fi
                if [ "$1" = -o ]; then output=$2; else root=$2; fi
                shift
                ;;
            --root=?*) root=${1#--root=} ;;
            --help | -h)
                help
                exit 0
                ;;
            --version)
                printf 'branchline survey %s, BLAKE3 %s\n' "$survey_version" "$survey_hash"
                exit 0
                ;;
            *) usage_error "there is no option $1" ;;
        esac
        shift
    done
    case $root in /*) ;; *) root=./$root ;; esac
    root=$(cd -P "$root/" 2>/dev/null && pwd -P) || fail "the root to survey is not a directory that can be entered; name one with --root"
    if [ "$root" = / ] || [ "$root" = // ]; then root=/ prefix=''; else prefix=$root; fi
}

# end_signature NAME: makes the findings of one signature its element, and hands on everything else that it said.
end_signature() {
    awk -v name="$1" -v mode="$mode" '
        $1 == "item" {
            sub(/^item /, "")
            if ($1 == "<item") { inside = 0; if (items < 128 && size < 24576) { items++; inside = 1 } else dropped++ ; facts = 0 }
            if ($1 == "<fact" && ++facts > 64) next
            if (inside) { lines[++n] = $0; size += length($0) }
            next
        }
        $1 == "module" || $1 == "threshold" || $1 == "command" || $1 == "conflict" { print; next }
        { strange++ }
        END {
            open = "<signature name=\"" name "\" mode=\"" mode "\" detected=\"" (items ? "true" : "false") "\""
            if (!items) { print "host       " open "/>" } else {
                print "host       " open ">"
                for (i = 1; i <= n; i++) print "host " lines[i]
                print "host       </signature>"
            }
            if (dropped) print "branchline survey: " dropped " findings beyond the bound of the signature " name " are left out" | "cat >&2"
            if (strange) print "branchline survey: the signature " name " wrote " strange " lines that are not part of a descriptor" | "cat >&2"
        }'
}

survey() {
    look_around
    element open '' descriptor xmlns 'urn:branchline:descriptor:1' survey_version "$survey_version" script_hash "$survey_hash" \
        mode "$mode" taken_at "$(date -u +%Y-%m-%dT%H:%M:%SZ)" root "$root"
    facts_identity
    facts_addresses
    facts_hardware
    facts_operating_system
    facts_disks
    facts_filesystems
    facts_packages
    facts_software
    facts_listening_ports
    printf 'host     <signatures>\n'
    run_signatures
    printf 'host     </signatures>\n'
    installation
    printf 'end\n'
}

# Puts the lines of all parts in the order of the document. Of modules and thresholds that two parts ask for, the first counts.
arrange() {
    awk '
        function section(name, lines, count, indentation,   i) {
            if (!count) { print indentation "<" name "/>"; return }
            print indentation "<" name ">"
            for (i = 1; i <= count; i++) print lines[i]
            print indentation "</" name ">"
        }
        function bounded(count, limit) { if (count < limit) return 1; dropped++; return 0 }
        { total += length($0); if (total > 1000000) exit }
        $1 == "open" {
            sub(/^open /, ""); sub(/\/>$/, ">")
            print "<?xml version=\"1.0\" encoding=\"UTF-8\"?>"
            print
            print "  <host>"
            next
        }
        $1 == "host" { print substr($0, 6); next }
        $1 == "module" { if (!seen[$3]++ && bounded(m, 64)) modules[++m] = substr($0, 8); next }
        $1 == "threshold" { if (!seen[$3 $4]++ && bounded(t, 64)) thresholds[++t] = substr($0, 11); next }
        $1 == "command" { if (bounded(c, 32)) commands[++c] = substr($0, 9); next }
        $1 == "conflict" { if (bounded(k, 64)) conflicts[++k] = substr($0, 10); next }
        $1 == "end" { complete = 1 }
        END {
            if (!complete) {
                print "branchline survey: the survey did not come to its end, or is larger than 1 MB" | "cat >&2"
                exit 1
            }
            print "  </host>"
            section("modules", modules, m, "  ")
            section("thresholds", thresholds, t, "  ")
            print "  <installation>"
            section("commands", commands, c, "    ")
            section("conflicts", conflicts, k, "    ")
            print "  </installation>"
            print "</descriptor>"
            if (dropped) print "branchline survey: " dropped " recommendations beyond their bounds are left out" | "cat >&2"
        }'
}

clean_up() {
    [ -z "$part" ] || rm -f "$part"
}

main() {
    options "$@"
    if [ -z "$output" ]; then
        survey | arrange || fail 'the descriptor could not be written'
        return 0
    fi
    case $output in /*) ;; *) output=./$output ;; esac
    [ ! -d "$output" ] || fail "$output is a directory; name a file with -o"
    part=$output.part.$$
    (set -C && : >"$part") 2>/dev/null || { part=''; fail "cannot write beside $output: is its directory there, writable and not full?"; }
    trap clean_up EXIT
    trap 'exit 1' HUP INT TERM
    survey | arrange >"$part" || fail "cannot write $output: is the disk full?"
    [ "$(tail -n 1 "$part")" = '</descriptor>' ] || fail "cannot write all of $output: is the disk full?"
    mv -f "$part" "$output" || fail "cannot put the finished descriptor in the place of $output"
    part=''
    say "the descriptor is in $output"
}

main "$@"
