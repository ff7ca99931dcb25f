#!/usr/bin/env bash
# Starts Debian's Prometheus in the lab's headquarters, scraping what a service discovery URL lists,
# and prints the address of its query API (reachable inside headquarters: lab prometheus-query).
#
# usage: prometheus.sh URL [TOKEN-FILE]     the file's token is shown as a bearer token
#
# The package is unpacked into the cache and not installed: nothing of this computer changes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"
load_lab
url=${1:?"usage: prometheus.sh URL [TOKEN-FILE]"}
authorization=
[[ -z ${2:-} ]] || authorization="authorization: { type: Bearer, credentials_file: $(realpath "$2") }"

package=$("$here/payload.sh" prometheus | head -n 1)
unpacked=${package%.deb}
if [[ ! -d $unpacked ]]; then
  rm -rf "$unpacked.new"
  dpkg -x "$package" "$unpacked.new"
  mv "$unpacked.new" "$unpacked"
fi

directory=$LAB_RUN/prometheus
mkdir -p "$directory"
cat >"$directory/prometheus.yml" <<YAML
global:
  scrape_interval: 2s
  scrape_timeout: 2s
scrape_configs:
  - job_name: branchline
    http_sd_configs:
      - url: $url
        refresh_interval: 2s
        $authorization
YAML
"$here/lab" spawn headquarters prometheus "$unpacked/usr/bin/prometheus" \
  --config.file="$directory/prometheus.yml" --storage.tsdb.path="$directory/data" \
  --web.listen-address=127.0.0.1:9090

ready() { "$here/lab" prometheus-query 'vector(1)' >/dev/null 2>&1; }
poll 30 ready || die "Prometheus does not answer: $("$here/lab" log headquarters prometheus | tail -n 3)"
echo "http://127.0.0.1:9090"
