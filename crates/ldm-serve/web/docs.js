// The operations and schemas of /openapi.json. All text goes in as text, never as markup.

const METHODS = ["get", "post", "put", "delete"];

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

/** A text with its `code`. */
function prose(text) {
  return text.split("`").map((part, index) => (index % 2 ? element("code", part) : part));
}

function link(name) {
  const made = element("a", name);
  made.href = `#${name}`;
  return made;
}

// What a schema is, in a few words and links.
function kind(schema) {
  if (!schema) return ["anything"];
  if (schema.$ref) return [link(schema.$ref.split("/").pop())];
  const several = schema.oneOf ?? schema.anyOf ?? schema.allOf;
  if (several) {
    const word = schema.allOf ? " and " : " or ";
    return several.flatMap((one, index) => (index ? [word, ...kind(one)] : kind(one)));
  }
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(", ")];
  const type = [schema.type ?? "anything"].flat().join(" or ");
  if (schema.items) return [`${type} of `, ...kind(schema.items)];
  return [schema.format ? `${type} (${schema.format})` : type];
}

function table(rows) {
  const head = element("thead", "", element("tr", "", element("th", "Name"), element("th", "Type"), element("th", "Meaning")));
  const body = element("tbody");
  for (const [name, type, meaning] of rows) {
    body.append(element("tr", "", element("td", "", element("code", name)), element("td", "", ...type), element("td", "", ...prose(meaning))));
  }
  return element("table", "", head, body);
}

function properties(schema) {
  const required = new Set(schema.required ?? []);
  return Object.entries(schema.properties ?? {}).map(([name, property]) => [
    required.has(name) ? `${name} *` : name, kind(property), property.description ?? "",
  ]);
}

function contents(content) {
  return Object.entries(content ?? {}).flatMap(([type, { schema }]) => [`${type}: `, ...kind(schema), " "]);
}

function operation(method, path, about) {
  const name = element("span", method);
  name.className = `method ${method}`;
  const body = element("div");
  body.className = "body";
  if (about.parameters) {
    body.append(table(about.parameters.map((one) => [one.required ? `${one.name} *` : one.name, kind(one.schema), `in the ${one.in}`])));
  }
  const list = element("dl");
  if (about.requestBody) list.append(element("dt", "Body"), element("dd", "", ...contents(about.requestBody.content)));
  for (const [status, answer] of Object.entries(about.responses)) {
    list.append(element("dt", status === "default" ? "Error" : status), element("dd", "", answer.content ? `${answer.description} as ` : answer.description, ...contents(answer.content)));
  }
  body.append(list);
  const what = element("span", about.summary);
  what.className = "what";
  return element("details", "", element("summary", "", name, element("code", path), what), body);
}

function schemaOf(name, schema) {
  const body = element("div");
  body.className = "body";
  if (schema.description) body.append(element("p", "", ...prose(schema.description)));
  const rows = properties(schema);
  for (const part of schema.allOf ?? []) rows.push(...properties(part));
  body.append(rows.length ? table(rows) : element("p", "", ...kind(schema)));
  if (schema.allOf) body.append(element("p", "", ...kind(schema)));
  const made = element("details", "", element("summary", "", element("code", name)), body);
  made.id = name;
  return made;
}

function show(api) {
  document.getElementById("about").textContent = `${api.info.description} Version ${api.info.version}.`;
  const list = document.getElementById("list");
  const section = (title, parts) => list.append(element("section", "", element("h2", title), ...parts));
  for (const tag of api.tags) {
    const operations = Object.entries(api.paths).flatMap(([path, item]) =>
      METHODS.filter((method) => item[method]?.tags.includes(tag.name)).map((method) => operation(method, path, item[method])));
    section(tag.description, operations);
  }
  const schemas = Object.entries(api.components.schemas).sort(([one], [other]) => one.localeCompare(other));
  section("Schemas", schemas.map(([name, schema]) => schemaOf(name, schema)));
  const filter = document.getElementById("filter");
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/);
    for (const part of list.querySelectorAll("details")) {
      const text = part.textContent.toLowerCase();
      part.hidden = !words.every((word) => text.includes(word));
    }
    for (const each of list.children) each.hidden = !each.querySelector("details:not([hidden])");
  });
  const open = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target?.matches("details")) {
      filter.value = "";
      filter.dispatchEvent(new Event("input"));
      target.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", open);
  open();
  document.documentElement.dataset.ready = "";
}

try {
  const answer = await fetch("openapi.json");
  if (!answer.ok) throw new Error(`${answer.status}`);
  show(await answer.json());
} catch (error) {
  document.getElementById("about").textContent = `openapi.json could not be read: ${error.message}`;
}
