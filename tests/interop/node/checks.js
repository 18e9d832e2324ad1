// The official JavaScript client against the platform of KUBECONFIG: `ok NAME` or `not ok NAME: why` for each check.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import * as k8s from "@kubernetes/client-node";

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const checks = [];

function check(name, run) {
  checks.push({ name, run });
}

async function eventually(what, condition) {
  const deadline = Date.now() + 20_000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`not within 20 s: ${what}`);
    await sleep(20);
  }
}

async function refused(code, reason, promise) {
  const error = await promise.then(
    () => assert.fail(`${reason} was let through`),
    (caught) => caught,
  );
  assert.ok(error instanceof k8s.ApiException, String(error));
  const status = typeof error.body === "string" ? JSON.parse(error.body) : error.body;
  assert.deepEqual([error.code, status.reason], [code, reason]);
}

const map = (name, data) => ({ metadata: { name, labels: { app: "interop" } }, data });
const pod = (name) => ({ metadata: { name }, spec: { containers: [{ name: "main", image: "example/main:1" }] } });
const deployment = (name, replicas) => ({
  apiVersion: "apps/v1",
  kind: "Deployment",
  metadata: { name },
  spec: { replicas, selector: { matchLabels: { app: name } }, template: { metadata: { labels: { app: name } }, spec: pod(name).spec } },
});

check("create-read-replace-delete", async (namespace) => {
  const made = await core.createNamespacedConfigMap({ namespace, body: map("one", { a: "1" }) });
  assert.ok(made.metadata.creationTimestamp instanceof Date);
  made.data.b = "2";
  const changed = await core.replaceNamespacedConfigMap({ name: "one", namespace, body: made });
  const read = await core.readNamespacedConfigMap({ name: "one", namespace });
  assert.deepEqual(read, changed);
  assert.deepEqual(read.data, { a: "1", b: "2" });
  await core.deleteNamespacedConfigMap({ name: "one", namespace });
  await refused(404, "NotFound", core.readNamespacedConfigMap({ name: "one", namespace }));
});

check("refusals", async (namespace) => {
  const made = await core.createNamespacedConfigMap({ namespace, body: map("one", {}) });
  await refused(409, "AlreadyExists", core.createNamespacedConfigMap({ namespace, body: map("one", {}) }));
  await core.replaceNamespacedConfigMap({ name: "one", namespace, body: { ...made, data: { a: "1" } } });
  await refused(409, "Conflict", core.replaceNamespacedConfigMap({ name: "one", namespace, body: { ...made, data: { a: "2" } } }));
  await refused(422, "Invalid", core.createNamespacedConfigMap({ namespace, body: map("Bad_Name", {}) }));
});

check("list-in-pages", async (namespace) => {
  for (let at = 0; at < 7; at += 1) await core.createNamespacedConfigMap({ namespace, body: map(`map-${at}`, {}) });
  const names = [];
  let _continue;
  do {
    const page = await core.listNamespacedConfigMap({ namespace, labelSelector: "app=interop", limit: 3, _continue });
    names.push(...page.items.map((item) => item.metadata.name));
    _continue = page.metadata._continue;
  } while (_continue);
  assert.deepEqual(names, ["map-0", "map-1", "map-2", "map-3", "map-4", "map-5", "map-6"]);
});

check("patches", async (namespace) => {
  await core.createNamespacedConfigMap({ namespace, body: map("one", { a: "1" }) });
  const patch = (body, strategy) =>
    core.patchNamespacedConfigMap({ name: "one", namespace, body }, k8s.setHeaderOptions("Content-Type", strategy));
  await patch([{ op: "add", path: "/data/b", value: "2" }], k8s.PatchStrategy.JsonPatch);
  await patch({ data: { a: null } }, k8s.PatchStrategy.MergePatch);
  const last = await patch({ data: { c: "3" } }, k8s.PatchStrategy.StrategicMergePatch);
  assert.deepEqual(last.data, { b: "2", c: "3" });
});

check("apply-any-object", async (namespace) => {
  const objects = k8s.KubernetesObjectApi.makeApiClient(config);
  const body = deployment("web", 0);
  body.metadata.namespace = namespace;
  const apply = () => objects.patch(body, undefined, undefined, "interop", true, k8s.PatchStrategy.ServerSideApply);
  const made = await apply();
  assert.equal(made.metadata.managedFields[0].operation, "Apply");
  body.spec.replicas = 2;
  assert.equal((await apply()).spec.replicas, 2);
  const read = await objects.read({ apiVersion: "apps/v1", kind: "Deployment", metadata: { name: "web", namespace } });
  assert.equal(read.spec.replicas, 2);
  const listed = await objects.list("apps/v1", "Deployment", namespace);
  assert.deepEqual(listed.items.map((item) => item.metadata.name), ["web"]);
  await objects.delete(read);
});

check("watch", async (namespace) => {
  const events = [];
  const watch = new k8s.Watch(config);
  const note = (type, object) => object.metadata.name === "seen" && events.push(type);
  const request = await watch.watch(`/api/v1/namespaces/${namespace}/configmaps`, {}, note, () => {});
  await core.createNamespacedConfigMap({ namespace, body: map("seen", {}) });
  await core.patchNamespacedConfigMap(
    { name: "seen", namespace, body: { data: { a: "1" } } },
    k8s.setHeaderOptions("Content-Type", k8s.PatchStrategy.MergePatch),
  );
  await core.deleteNamespacedConfigMap({ name: "seen", namespace });
  await eventually(`three events, not ${events}`, () => events.length >= 3);
  request.abort();
  assert.deepEqual(events, ["ADDED", "MODIFIED", "DELETED"]);
});

check("informer", async (namespace) => {
  await apps.createNamespacedDeployment({ namespace, body: deployment("web", 2) });
  const list = () => core.listNamespacedPod({ namespace });
  const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/pods`, list);
  const gone = [];
  informer.on("delete", (object) => gone.push(object.metadata.name));
  const problems = [];
  informer.on("error", (error) => problems.push(String(error)));
  await informer.start();
  await eventually("two pods run", () => informer.list(namespace).filter((one) => one.status.phase === "Running").length === 2);
  await apps.patchNamespacedDeploymentScale(
    { name: "web", namespace, body: { spec: { replicas: 1 } } },
    k8s.setHeaderOptions("Content-Type", k8s.PatchStrategy.MergePatch),
  );
  await eventually("one pod is left", () => gone.length === 1 && informer.list(namespace).length === 1);
  assert.deepEqual(problems, []);
  await informer.stop();
});

check("custom-resource", async (namespace) => {
  const definitions = config.makeApiClient(k8s.ApiextensionsV1Api);
  const plural = `n${namespace.replaceAll("-", "")}s`;
  const schema = { type: "object", properties: { spec: { type: "object", properties: { size: { type: "integer", _default: 1 } } } } };
  const kind = plural[0].toUpperCase() + plural.slice(1, -1);
  const name = `${plural}.interop.dure.dev`;
  await definitions.createCustomResourceDefinition({
    body: {
      metadata: { name },
      spec: {
        group: "interop.dure.dev",
        scope: "Namespaced",
        names: { plural, singular: plural.slice(0, -1), kind },
        versions: [{ name: "v1", served: true, storage: true, schema: { openAPIV3Schema: schema } }],
      },
    },
  });
  await eventually("the definition is established", async () => {
    const read = await definitions.readCustomResourceDefinition({ name });
    return read.status?.conditions?.some((one) => one.type === "Established" && one.status === "True");
  });
  const custom = config.makeApiClient(k8s.CustomObjectsApi);
  const place = { group: "interop.dure.dev", version: "v1", namespace, plural };
  const body = { apiVersion: "interop.dure.dev/v1", kind, metadata: { name: "one" }, spec: {} };
  const made = await custom.createNamespacedCustomObject({ ...place, body });
  assert.deepEqual(made.spec, { size: 1 });
  const listed = await custom.listNamespacedCustomObject(place);
  assert.deepEqual(listed.items.map((item) => item.kind), [kind]);
  await definitions.deleteCustomResourceDefinition({ name });
});

check("token", async (namespace) => {
  await core.createNamespacedServiceAccount({ namespace, body: { metadata: { name: "robot" } } });
  const body = { spec: { audiences: [], expirationSeconds: 600 } };
  const issued = await core.createNamespacedServiceAccountToken({ name: "robot", namespace, body });
  const other = new k8s.KubeConfig();
  other.loadFromClusterAndUser(config.getCurrentCluster(), { name: "robot", token: issued.status.token });
  await refused(403, "Forbidden", other.makeApiClient(k8s.CoreV1Api).listNamespacedSecret({ namespace }));
});

check("all-kinds-are-read", async () => {
  const objects = k8s.KubernetesObjectApi.makeApiClient(config);
  for (const [version, kind] of [["v1", "Node"], ["v1", "Namespace"], ["v1", "Service"], ["rbac.authorization.k8s.io/v1", "ClusterRole"],
    ["discovery.k8s.io/v1", "EndpointSlice"], ["coordination.k8s.io/v1", "Lease"], ["storage.k8s.io/v1", "StorageClass"]]) {
    const listed = await objects.list(version, kind);
    assert.ok(Array.isArray(listed.items), kind);
  }
  const nodes = await core.listNode();
  assert.ok(Number.parseInt(nodes.items[0].status.capacity.cpu, 10) > 0);
});

let failed = false;
for (const { name, run } of checks) {
  try {
    const made = await core.createNamespace({ body: { metadata: { generateName: "node-" } } });
    const namespace = made.metadata.name;
    await Promise.race([run(namespace), sleep(40_000, undefined, { ref: false }).then(() => assert.fail("not within 40 s"))]);
    await core.deleteNamespace({ name: namespace });
    console.log(`ok ${name}`);
  } catch (error) {
    failed = true;
    console.log(`not ok ${name}: ${String(error?.message ?? error).replaceAll("\n", " ")}`);
  }
}
process.exit(failed ? 1 : 0);
