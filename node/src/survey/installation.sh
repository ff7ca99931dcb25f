# shellcheck shell=sh
# ---- installation: what it will run here, and what it may collide with -------------------------------------------------------

installation_commands() {
    case $package_manager in
        dpkg) command_planned 'dpkg --install PACKAGE.deb' 'install the chosen package' ;;
        rpm) command_planned 'rpm --upgrade PACKAGE.rpm' 'install the chosen package' ;;
        *) command_planned 'branchline installer unpacks PACKAGE.tar' 'install the chosen package, as no supported package manager is here' ;;
    esac
    command_planned 'branchline installer writes CONFIGURATION' 'switch modules on and set thresholds, from this survey'
    if [ "$init" = systemd ]; then
        command_planned 'systemctl daemon-reload' 'make the unit of the agent known'
        command_planned 'systemctl enable --now AGENT.service' 'start the agent, also after a restart of the machine'
    else
        command_planned 'branchline installer starts AGENT' 'run the agent as a supervised process, as systemd is not here'
    fi
}

# Ports that monitoring agents commonly use.
conflict_ports() {
    for port in 9100:node_exporter 161:SNMP 199:SNMP 10050:Zabbix 5666:NRPE 6556:Checkmk 4949:Munin 8125:StatsD 19999:Netdata 12489:NSClient; do
        case $listening_numbers in
            *" ${port%%:*} "*) conflict port_in_use warning "${port%%:*}" "the port is in use, often by ${port#*:}" ;;
        esac
    done
}

conflict_agents() {
    for agent in node_exporter prometheus-node zabbix_agentd zabbix_agent2 nrpe netdata telegraf collectd trace-agent snmpd \
        check_mk_agent cmk-agent-ctl icinga2 munin-node newrelic-infra metricbeat filebeat otelcol grafana-agent alloy; do
        if is_running "$agent"; then
            conflict monitoring_agent warning "$agent" 'another monitoring agent is running'
        fi
    done
}

conflict_space() {
    for place in / /var; do
        [ -d "$prefix$place" ] || continue
        space=$(space_of "$prefix$place")
        [ -n "$space" ] || continue
        if [ "$((${space#* } / 1048576))" -lt 512 ]; then
            conflict disk_space warning "$place" "only $((${space#* } / 1048576)) MiB are free"
        fi
    done
}

# The package manager's lock, by the kernel's table of locks: the inode of the lock file is in it while somebody holds it.
conflict_lock() {
    for lock in /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/rpm/.rpm.lock; do
        lock_path=$(inside "$lock") || continue
        inode=$(find "$lock_path" -prune -exec ls -i {} + 2>/dev/null | awk '{ print $1; exit }')
        if [ -n "$inode" ] && read_text /proc/locks | grep -q ":$inode "; then
            conflict package_manager_locked blocking "$lock" 'another program is installing packages at this moment'
        fi
    done
}

installation() {
    installation_commands
    conflict_ports
    conflict_agents
    conflict_space
    conflict_lock
    case $architecture in
        amd64 | arm64) ;;
        *) conflict architecture blocking "$architecture" 'agents are built for amd64 and arm64' ;;
    esac
}
