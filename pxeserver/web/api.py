"""REST API, /api/v1: the fleet's use cases over HTTP, JSON in and out. docs/api.md lists the routes (tested).

A machine is named in a path as on the command line: MAC in any spelling, name or id. Every answer is a value of
fleet/values.py or model.py, made JSON by serial.to_json: the same text that `pxeserver -o json` prints.
"""

from __future__ import annotations

from flask import Blueprint, Response, current_app, json, request
from werkzeug.exceptions import MethodNotAllowed

from pxeserver.errors import NotFound, UsageError, Where
from pxeserver.fleet.fleet import Fleet
from pxeserver.fleet.values import ExplainOrder
from pxeserver.mac import looks_like_mac, parse_mac
from pxeserver.serial import to_json
from pxeserver.web.bodies import (
    AssignmentBody,
    AssignmentsBody,
    MachineBody,
    PinBody,
    Query,
    body,
    whole_number,
    yes_or_no,
)

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")

LIMIT_MAX = 10_000
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_limit = whole_number(1, LIMIT_MAX)


def fleet() -> Fleet:
    found: Fleet = current_app.config["FLEET"]
    return found


def answer(value: object, status: int = 200) -> Response:
    """A value as JSON, never kept by a cache."""
    text = json.dumps(to_json(value)) + "\n"
    return Response(text, status, mimetype="application/json", headers={"Cache-Control": "no-store"})


@blueprint.get("/status")
def status() -> Response:
    """Version, data folder, generation, how many machines and images."""
    Query()
    return answer(fleet().status())


@blueprint.get("/machines")
def machines() -> Response:
    """All machines; `known=true|false`."""
    return answer(fleet().machines(known=Query("known").take("known", yes_or_no, None)))


@blueprint.get("/unknown")
def unknown() -> Response:
    """Machines that only showed up on the wire, last seen first."""
    Query()
    return answer(fleet().machines(known=False))


@blueprint.post("/machines")
def machine_add() -> Response:
    """Add a machine."""
    Query()
    change = fleet().add_machine(body(MachineBody).edit())
    created = answer(change, 201)
    created.headers["Location"] = f"{request.path.rstrip('/')}/{change.mac}"
    return created


@blueprint.get("/machines/<target>")
def machine(target: str) -> Response:
    """Profile, assignment and its history, boots, events of the latest boot."""
    Query()
    return answer(fleet().show(target))


@blueprint.put("/machines/<target>")
def machine_put(target: str) -> Response:
    """The whole machine: what the body leaves out is empty. A MAC that nobody has makes a new machine."""
    Query()
    edit = body(MachineBody).whole()
    if not edit.macs:
        raise UsageError("mac-missing", "a machine needs at least one MAC", where=Where(field="macs"))
    try:
        return answer(fleet().set_machine(target, edit))
    except NotFound as error:
        if error.slug != "machine-not-found" or not looks_like_mac(target):
            raise
        if parse_mac(target) not in map(parse_mac, edit.macs):
            raise UsageError("mac-missing", f"macs does not hold {target}", where=Where(field="macs")) from None
        return answer(fleet().add_machine(edit), 201)


@blueprint.patch("/machines/<target>")
def machine_patch(target: str) -> Response:
    """Change what the body names; a label or var with null goes away."""
    Query()
    return answer(fleet().set_machine(target, body(MachineBody).edit()))


@blueprint.delete("/machines/<target>")
def machine_delete(target: str) -> Response:
    """Forget a machine; its boots stay in the record. `assigned=true`: also one that has an assignment."""
    assigned = Query("assigned").take("assigned", yes_or_no, False)
    return answer(fleet().remove_machine(target, assigned=assigned))


@blueprint.put("/machines/<target>/assignment")
def assignment_put(target: str) -> Response:
    """Assign an image."""
    Query()
    return answer(fleet().assign([target], body(AssignmentBody).order())[0])


@blueprint.delete("/machines/<target>/assignment")
def assignment_delete(target: str) -> Response:
    """Take the assignment away."""
    Query()
    return answer(fleet().unassign([target])[0])


@blueprint.post("/assignments")
def assignments_post() -> Response:
    """Assign one image to several machines: all or none."""
    Query()
    wanted = body(AssignmentsBody)
    return answer(fleet().assign(wanted.targets, wanted.order()))


@blueprint.delete("/assignments")
def assignments_delete() -> Response:
    """Take the assignments of `target=...&target=...` away: all or none."""
    Query("target")
    targets = request.args.getlist("target")
    if not targets:
        raise UsageError("target-missing", "no machine is named", hint="?target=NAME&target=NAME")
    return answer(fleet().unassign(targets))


@blueprint.put("/machines/<target>/pin")
def pin_put(target: str) -> Response:
    """Pin style or loader."""
    Query()
    wanted = body(PinBody)
    return answer(fleet().pin(target, style=wanted.style, loader=wanted.loader))


@blueprint.delete("/machines/<target>/pin")
def pin_delete(target: str) -> Response:
    """Take both pins away."""
    Query()
    return answer(fleet().pin(target, style="", loader=""))


@blueprint.get("/machines/<target>/explain")
def machine_explain(target: str) -> Response:
    """The decision on its last packet, or on the one that `arch`, `firmware`, `vendor_class` or `packet` describe."""
    query = Query("arch", "firmware", "vendor_class", "packet")
    order = ExplainOrder(
        arch=query.take("arch", whole_number(0, 65535), None),
        firmware=query.text("firmware"),
        vendor_class=query.text("vendor_class"),
        packet=query.text("packet"),
    )
    return answer(fleet().explain(target, order))


@blueprint.get("/machines/<target>/render")
def machine_render(target: str) -> Response:
    """`what=script` (default) or `what=cmdline`, with the origin of each part."""
    return answer(fleet().render(target, Query("what").take("what", str, "script")))


@blueprint.get("/machines/<target>/boots")
def machine_boots(target: str) -> Response:
    """The machine's boots, newest first; `limit`."""
    return answer(fleet().boots(target, limit=Query("limit").take("limit", _limit, 50)))


@blueprint.get("/boots")
def boots() -> Response:
    """All boots, newest first; `limit`."""
    return answer(fleet().boots(limit=Query("limit").take("limit", _limit, 50)))


@blueprint.get("/boots/<boot>")
def boot(boot: str) -> Response:
    """One boot with its events."""
    Query()
    return answer(fleet().boot(boot))


@blueprint.get("/events")
def events() -> Response:
    """The last events, oldest first; `machine`, `boot`, `after` (an event's id), `limit`."""
    query = Query("machine", "boot", "after", "limit")
    found = fleet().events(
        query.text("machine") or None,
        boot=query.text("boot"),
        after=query.take("after", whole_number(0, (1 << 63) - 1), 0),
        limit=query.take("limit", _limit, 200),
    )
    return answer(found)


@blueprint.get("/images")
def images() -> Response:
    """Built images, newest first."""
    Query()
    return answer(fleet().images())


@blueprint.get("/images/<text>")
def image(text: str) -> Response:
    """One image by name, name:tag or digest."""
    Query()
    return answer(fleet().catalogue.get(text))


@blueprint.get("/needed-images")
def needed_images() -> Response:
    """Digests that `images gc` keeps because of machines."""
    Query()
    return answer(fleet().needed_images())


@blueprint.get("/specs")
def specs() -> Response:
    """Specs and their newest builds."""
    Query()
    return answer(fleet().specs())


@blueprint.route("/<path:rest>", methods=METHODS)
def nowhere(rest: str) -> Response:
    """Every other address below /api/v1: 405 if another method would do, else 404. Not a route of its own."""
    adapter = current_app.url_map.bind("")
    allowed = [m for m in METHODS if adapter.match(request.path, method=m)[0] != request.endpoint]
    if allowed:
        raise MethodNotAllowed(valid_methods=allowed, description=f"{request.method} is not for {request.path}")
    raise NotFound("no-such-route", f"there is no {request.path}", hint="docs/api.md lists the routes")
