#!/usr/bin/env python3
"""Extracts the field numbers of Kubernetes' protobuf encoding from the Go types into fields.txt.

Usage: facts.py API APIMACHINERY APIEXTENSIONS GROUPVERSION... > fields.txt
where the first three are checkouts of kubernetes/{api,apimachinery,apiextensions-apiserver}. Only
numbers, names and types are kept. The format is described in table.rs.
"""
import pathlib
import re
import sys

SPECIAL = {
    "k8s.io/apimachinery/pkg/apis/meta/v1.Time": "Time",
    "k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime": "MicroTime",
    "k8s.io/apimachinery/pkg/apis/meta/v1.Duration": "Duration",
    "k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1": "Raw",
    "k8s.io/apimachinery/pkg/runtime.RawExtension": "Raw",
    "k8s.io/apimachinery/pkg/api/resource.Quantity": "Quantity",
    "k8s.io/apimachinery/pkg/util/intstr.IntOrString": "IntOrString",
    "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSON": "Raw",
    "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrArray": "SchemaOrArray",
    "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrBool": "SchemaOrBool",
    "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrStringArray": "SchemaOrStrings",
    "k8s.io/apimachinery/pkg/types.UID": "s",
    "k8s.io/apimachinery/pkg/types.NodeName": "s",
    "time.Duration": "i",
}
SCALARS = {"string": "s", "bool": "b", "[]byte": "y", "float64": "d"}
SCALARS.update({name: "i" for name in ("int", "int32", "int64", "uint32", "uint64", "uint8", "int8", "byte")})

FIELD = re.compile(r'^\t(?:(\w+)\s+)?((?:[\w.\[\]*])+)\s*`([^`]*)`')


class Package:
    def __init__(self, path, directory):
        self.path = path
        self.structs, self.named = {}, {}
        for file in sorted(directory.glob("*.go")):
            if file.name.startswith("zz_") or file.name.endswith(("_test.go", ".pb.go")):
                continue
            self.read(file.read_text())
        register = directory / "register.go"
        found = re.search(r'GroupName\s*=\s*"([^"]*)"', register.read_text()) if register.exists() else None
        if not found and (directory.parent / "register.go").exists():
            found = re.search(r'GroupName\s*=\s*"([^"]*)"', (directory.parent / "register.go").read_text())
        self.group = found.group(1) if found else ""

    def read(self, text):
        imports = {}
        for alias, path in re.findall(r'^\s*(?:import\s+)?(\w+)?\s*"([\w./-]+)"$', text, re.M):
            imports[alias or path.rsplit("/", 1)[-1]] = path
        for name, body in re.findall(r'^type (\w+) struct \{\n(.*?)^\}', text, re.M | re.S):
            self.structs[name] = (body, imports)
        for name in re.findall(r'^type (\w+) struct\s*\{\s*\}$', text, re.M):
            self.structs[name] = ("", imports)
        for name, target in re.findall(r'^type (\w+) ([\w.\[\]*]+)$', text, re.M):
            self.named[name] = (target, imports)


class Table:
    def __init__(self, packages):
        self.packages = packages
        self.lines, self.done, self.queue = [], set(), []

    def resolve(self, go, package, imports):
        """The kind of a Go type in the table's words."""
        if go.startswith("*"):
            return "*" + self.resolve(go[1:], package, imports)
        if go in SCALARS:
            return SCALARS[go]
        if go.startswith("[]"):
            return "[]" + self.resolve(go[2:], package, imports)
        if found := re.match(r"map\[([\w.]+)\](.*)", go):
            return "{}" + self.resolve(found.group(2), package, imports)
        if "." in go:
            alias, name = go.split(".")
            path = imports[alias]
        else:
            path, name = package.path, go
        full = f"{path}.{name}"
        if full in SPECIAL:
            return SPECIAL[full]
        owner = self.packages[path]
        if name in owner.structs:
            self.queue.append((owner, name))
            return self.short(owner, name)
        target, imports = owner.named[name]
        if target.startswith("[]") and target != "[]byte":
            return "items"
        return self.resolve(target, owner, imports)

    def short(self, package, name):
        return f"{package.path.replace('k8s.io/', '').replace('/pkg/apis', '')}.{name}"

    def struct(self, package, name):
        if (package.path, name) in self.done:
            return
        self.done.add((package.path, name))
        body, imports = package.structs[name]
        fields = []
        for line in body.splitlines():
            found = FIELD.match(line)
            if not found:
                continue
            _, go, tags = found.groups()
            number = re.search(r'protobuf:"\w+,(\d+)', tags)
            if not number:
                continue
            json = re.search(r'json:"([^"]*)"', tags).group(1).split(",")
            kind = self.resolve(go, package, imports)
            keep = "" if "omitempty" in json[1:] or "omitzero" in json[1:] else "!"
            fields.append(f"{number.group(1)} {json[0] or '~'} {kind}{keep}")
        self.lines.append((self.short(package, name), fields))


def main():
    api, machinery, extensions = map(pathlib.Path, sys.argv[1:4])
    wanted = set(sys.argv[4:])
    packages = {}
    for root, prefix in ((api, "k8s.io/api"), (machinery, "k8s.io/apimachinery"), (extensions, "k8s.io/apiextensions-apiserver")):
        for directory in {file.parent for file in root.rglob("*.go")}:
            path = f"{prefix}/{directory.relative_to(root)}"
            packages[path] = Package(path, directory)
    table = Table(packages)
    kinds = []
    for path, package in sorted(packages.items()):
        version = path.rsplit("/", 1)[-1]
        gv = f"{package.group}/{version}" if package.group else version
        served = gv in wanted and (path.startswith("k8s.io/api/") or "apiextensions/" in path)
        if not served and path != "k8s.io/apimachinery/pkg/apis/meta/v1":
            continue
        for name, (body, _) in sorted(package.structs.items()):
            top = re.search(r"^\t(metav1\.)?TypeMeta\s*`", body, re.M)
            if top and not name.endswith("List"):
                kinds.append(f"= {gv if served else 'meta'} {name} {table.short(package, name)}")
                table.queue.append((package, name))
    while table.queue:
        table.struct(*table.queue.pop())
    print("\n".join(kinds))
    for name, fields in sorted(table.lines):
        print(f": {name}")
        for field in fields:
            print(field)


main()
