# config.json and runtime.json of containers, each given by --rawfile PATH PATH -> a shell function: plan FOLDER sets
# $steps (what to do on the host before the start), $config (with an absolute root, and a hook where something is to be
# done between creation and start) and $namespace; it fails for a container whose files are not there or no JSON. One
# run for all of them: most of jq's time is its start.

def command: map(@sh) | join(" ");

def steps: [
    (.mounts // [] | .[] | ["mount_one", .destination // "", .type // "", .source // "", (.options // [] | join(","))]),
    (.mkdir // [] | .[] | ["mkdir", "-p", .]),
    (.cgroups // [] | .[] | ["make_cgroup", .])
    | command + " || return 1"] | join("\n");

def hook: [
    (.interfaces // [] | .[] | ["interface", .name // "", .add // "", .peer // "", (.createInRoot // false | tostring)]),
    (.bindNS // {} | to_entries[] | select(.value != "" and .value != null) | ["bind_namespace", .key, .value])
    | command + " || exit 1"] | join("\n");

def with_hook($commands):
    if $commands == "" then .
    else .hooks.createRuntime += [{path: "/usr/lib/pxeserver/hook", args: ["hook", $commands]}] end;

$ARGS.named
| with_entries(.value = (.value | try fromjson catch null))
| . as $files
| [keys[] | select(endswith("/config.json")) | rtrimstr("/config.json")]
| map(
    . as $folder
    | (if $files | has($folder + "/runtime.json") then $files[$folder + "/runtime.json"] else {} end) as $runtime
    | $files[$folder + "/config.json"]
    | select(. != null and $runtime != null)
    | .root.path = $folder + "/rootfs"
    | with_hook($runtime | hook)
    | tojson as $config
    | [["steps", ($runtime | steps)], ["config", $config], ["namespace", $runtime.namespace // ""]]
    | ($folder | @sh) + ") " + (map(.[0] + "=" + (.[1] | @sh)) | join(" ")) + " ;;")
| "plan() {\ncase $1 in", .[], "*) return 1 ;;\nesac\n}"
