// SPDX-License-Identifier: MPL-2.0
// Lists what openapi.json describes.

const api = await (await fetch("openapi.json")).json();
document.getElementById("about").textContent = api.info.description;

/** An element with a text or with children. */
function make(name, ...content) {
  const element = document.createElement(name);
  element.append(...content.filter((part) => part !== undefined && part !== null));
  return element;
}

/** What a schema is, in few words; fields one a line. */
function type(schema, depth = 0) {
  if (!schema || depth > 4) return "...";
  if (schema.$ref) {
    const name = schema.$ref.split("/").at(-1);
    return type(api.components.schemas[name], depth);
  }
  const any = schema.oneOf ?? schema.anyOf;
  if (any) return any.filter((one) => one.type !== "null").map((one) => type(one, depth)).join(" | ");
  if (schema.allOf) return schema.allOf.map((one) => type(one, depth)).join(" & ");
  if (schema.enum) return schema.enum.map((word) => JSON.stringify(word)).join(" | ");
  if (schema.type === "array") return `[${type(schema.items, depth)}]`;
  if (schema.properties) {
    const indent = "  ".repeat(depth + 1);
    const required = new Set(schema.required ?? []);
    const fields = Object.entries(schema.properties).map(([name, field]) => {
      const says = field.description ? `   // ${field.description.replaceAll("\n", " ")}` : "";
      return `${indent}${name}${required.has(name) ? "" : "?"}: ${type(field, depth + 1)}${says}`;
    });
    return `{\n${fields.join("\n")}\n${"  ".repeat(depth)}}`;
  }
  return [schema.type].flat().filter((one) => one && one !== "null").join(" | ") || "any";
}

const paths = document.getElementById("paths");
for (const [path, methods] of Object.entries(api.paths)) {
  for (const [method, operation] of Object.entries(methods)) {
    paths.append(make("h2", make("code", `${method.toUpperCase()} ${path}`)));
    paths.append(make("p", operation.summary ?? operation.description ?? ""));
    for (const parameter of operation.parameters ?? []) {
      paths.append(make("p", make("code", parameter.name), ` (${parameter.in}) ${parameter.description ?? ""}`));
    }
    const body = operation.requestBody?.content?.["application/json"]?.schema;
    if (body) paths.append(make("p", "takes"), make("pre", type(body)));
    for (const [status, response] of Object.entries(operation.responses)) {
      const [kind, content] = Object.entries(response.content ?? {})[0] ?? [];
      paths.append(make("p", make("code", status), ` ${response.description ?? ""} ${kind ?? ""}`));
      if (content?.schema && status < 400) paths.append(make("pre", type(content.schema)));
    }
  }
}
