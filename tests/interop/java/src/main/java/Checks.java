import io.kubernetes.client.custom.Quantity;
import io.kubernetes.client.custom.V1Patch;
import io.kubernetes.client.informer.ResourceEventHandler;
import io.kubernetes.client.informer.SharedInformerFactory;
import io.kubernetes.client.openapi.ApiClient;
import io.kubernetes.client.openapi.ApiException;
import io.kubernetes.client.openapi.apis.AppsV1Api;
import io.kubernetes.client.openapi.apis.CoreV1Api;
import io.kubernetes.client.openapi.models.V1ConfigMap;
import io.kubernetes.client.openapi.models.V1ConfigMapList;
import io.kubernetes.client.openapi.models.V1Container;
import io.kubernetes.client.openapi.models.V1Deployment;
import io.kubernetes.client.openapi.models.V1DeploymentSpec;
import io.kubernetes.client.openapi.models.V1LabelSelector;
import io.kubernetes.client.openapi.models.V1Namespace;
import io.kubernetes.client.openapi.models.V1ObjectMeta;
import io.kubernetes.client.openapi.models.V1Pod;
import io.kubernetes.client.openapi.models.V1PodList;
import io.kubernetes.client.openapi.models.V1PodSpec;
import io.kubernetes.client.openapi.models.V1PodTemplateSpec;
import io.kubernetes.client.openapi.models.V1ResourceRequirements;
import io.kubernetes.client.util.Config;
import io.kubernetes.client.util.PatchUtils;
import io.kubernetes.client.util.Watch;
import io.kubernetes.client.util.generic.dynamic.DynamicKubernetesApi;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentLinkedQueue;

/** The official Java client against the platform of KUBECONFIG: {@code ok NAME} or {@code not ok NAME: why} for each check. */
public final class Checks {
  interface Check {
    void run(String namespace) throws Exception;
  }

  private final ApiClient client = Config.defaultClient().setReadTimeout(0);
  private final CoreV1Api core = new CoreV1Api(client);
  private final AppsV1Api apps = new AppsV1Api(client);
  private final Map<String, Check> checks = new LinkedHashMap<>();

  private Checks() throws Exception {
    check("create-read-replace-delete", this::createReadReplaceDelete);
    check("refusals", this::refusals);
    check("list-in-pages", this::listInPages);
    check("patches", this::patches);
    check("watch", this::watch);
    check("informer", this::informer);
    check("dynamic", this::dynamic);
  }

  private void check(String name, Check check) {
    checks.put(name, check);
  }

  public static void main(String[] arguments) throws Exception {
    System.exit(new Checks().runAll() ? 0 : 1);
  }

  private boolean runAll() {
    boolean good = true;
    for (Map.Entry<String, Check> one : checks.entrySet()) {
      try {
        V1Namespace body = new V1Namespace().metadata(new V1ObjectMeta().generateName("java-"));
        String namespace = core.createNamespace(body).execute().getMetadata().getName();
        one.getValue().run(namespace);
        core.deleteNamespace(namespace).execute();
        System.out.println("ok " + one.getKey());
      } catch (Exception | AssertionError problem) {
        good = false;
        String why = problem instanceof ApiException refusal ? refusal.getCode() + " " + refusal.getResponseBody() : problem.toString();
        System.out.println("not ok " + one.getKey() + ": " + String.valueOf(why).replace('\n', ' '));
      }
    }
    return good;
  }

  private static void equal(Object got, Object want) {
    if (!want.equals(got)) {
      throw new AssertionError(got + " is not " + want);
    }
  }

  private static void eventually(String what, Callable<Boolean> condition) throws Exception {
    long deadline = System.nanoTime() + 20_000_000_000L;
    while (!condition.call()) {
      if (System.nanoTime() > deadline) {
        throw new AssertionError("not within 20 s: " + what);
      }
      Thread.sleep(20);
    }
  }

  private static void refused(int code, Callable<?> call) throws Exception {
    try {
      call.call();
    } catch (ApiException refusal) {
      equal(refusal.getCode(), code);
      return;
    }
    throw new AssertionError(code + " was let through");
  }

  private static V1ConfigMap configMap(String name, Map<String, String> data) {
    return new V1ConfigMap().metadata(new V1ObjectMeta().name(name).putLabelsItem("app", "interop")).data(data);
  }

  private static V1PodSpec podSpec() {
    V1ResourceRequirements resources = new V1ResourceRequirements().putRequestsItem("cpu", new Quantity("100m"));
    return new V1PodSpec().addContainersItem(new V1Container().name("main").image("example/main:1").resources(resources));
  }

  private void createReadReplaceDelete(String namespace) throws Exception {
    V1ConfigMap made = core.createNamespacedConfigMap(namespace, configMap("one", Map.of("a", "1"))).execute();
    made.putDataItem("b", "2");
    V1ConfigMap changed = core.replaceNamespacedConfigMap("one", namespace, made).execute();
    V1ConfigMap read = core.readNamespacedConfigMap("one", namespace).execute();
    equal(read, changed);
    equal(read.getData(), Map.of("a", "1", "b", "2"));
    core.deleteNamespacedConfigMap("one", namespace).execute();
    refused(404, () -> core.readNamespacedConfigMap("one", namespace).execute());
  }

  private void refusals(String namespace) throws Exception {
    V1ConfigMap made = core.createNamespacedConfigMap(namespace, configMap("one", Map.of())).execute();
    refused(409, () -> core.createNamespacedConfigMap(namespace, configMap("one", Map.of())).execute());
    made.putDataItem("a", "1");
    core.replaceNamespacedConfigMap("one", namespace, made).execute();
    made.putDataItem("a", "2");
    refused(409, () -> core.replaceNamespacedConfigMap("one", namespace, made).execute());
    refused(422, () -> core.createNamespacedConfigMap(namespace, configMap("Bad_Name", Map.of())).execute());
  }

  private void listInPages(String namespace) throws Exception {
    List<String> want = new ArrayList<>();
    for (int at = 0; at < 7; at++) {
      want.add("map-" + at);
      core.createNamespacedConfigMap(namespace, configMap("map-" + at, Map.of())).execute();
    }
    List<String> names = new ArrayList<>();
    String next = null;
    do {
      V1ConfigMapList page =
          core.listNamespacedConfigMap(namespace).labelSelector("app=interop").limit(3)._continue(next).execute();
      page.getItems().forEach(item -> names.add(item.getMetadata().getName()));
      next = page.getMetadata().getContinue();
    } while (next != null && !next.isEmpty());
    equal(names, want);
  }

  private V1ConfigMap patch(String namespace, String format, String body) throws ApiException {
    V1Patch patch = new V1Patch(body);
    boolean applied = V1Patch.PATCH_FORMAT_APPLY_YAML.equals(format);
    return PatchUtils.patch(
        V1ConfigMap.class,
        () -> {
          CoreV1Api.APIpatchNamespacedConfigMapRequest request = core.patchNamespacedConfigMap("one", namespace, patch);
          return (applied ? request.fieldManager("interop").force(true) : request).buildCall(null);
        },
        format,
        client);
  }

  private void patches(String namespace) throws Exception {
    core.createNamespacedConfigMap(namespace, configMap("one", Map.of("a", "1"))).execute();
    patch(namespace, V1Patch.PATCH_FORMAT_JSON_PATCH, "[{\"op\":\"add\",\"path\":\"/data/b\",\"value\":\"2\"}]");
    patch(namespace, V1Patch.PATCH_FORMAT_JSON_MERGE_PATCH, "{\"data\":{\"a\":null}}");
    patch(namespace, V1Patch.PATCH_FORMAT_STRATEGIC_MERGE_PATCH, "{\"data\":{\"c\":\"3\"}}");
    String applied = "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"one\"},\"data\":{\"d\":\"4\"}}";
    V1ConfigMap last = patch(namespace, V1Patch.PATCH_FORMAT_APPLY_YAML, applied);
    equal(last.getData(), Map.of("b", "2", "c", "3", "d", "4"));
  }

  private void watch(String namespace) throws Exception {
    List<String> types = new ArrayList<>();
    okhttp3.Call call =
        core.listNamespacedConfigMap(namespace).fieldSelector("metadata.name=seen").watch(true).buildCall(null);
    java.lang.reflect.Type type = new com.google.gson.reflect.TypeToken<Watch.Response<V1ConfigMap>>() {}.getType();
    try (Watch<V1ConfigMap> events = Watch.createWatch(client, call, type)) {
      V1ConfigMap made = core.createNamespacedConfigMap(namespace, configMap("seen", Map.of())).execute();
      core.replaceNamespacedConfigMap("seen", namespace, made.putDataItem("a", "1")).execute();
      core.deleteNamespacedConfigMap("seen", namespace).execute();
      while (types.size() < 3) {
        types.add(events.next().type);
      }
    }
    equal(types, List.of("ADDED", "MODIFIED", "DELETED"));
  }

  private void informer(String namespace) throws Exception {
    Map<String, String> labels = Map.of("app", "web");
    V1PodTemplateSpec template = new V1PodTemplateSpec().metadata(new V1ObjectMeta().labels(labels)).spec(podSpec());
    V1DeploymentSpec spec =
        new V1DeploymentSpec().replicas(2).selector(new V1LabelSelector().matchLabels(labels)).template(template);
    V1Deployment web = new V1Deployment().metadata(new V1ObjectMeta().name("web")).spec(spec);
    apps.createNamespacedDeployment(namespace, web).execute();
    SharedInformerFactory factory = new SharedInformerFactory(client);
    var informer =
        factory.sharedIndexInformerFor(
            parameters ->
                core.listNamespacedPod(namespace)
                    .resourceVersion(parameters.resourceVersion)
                    .timeoutSeconds(parameters.timeoutSeconds)
                    .watch(parameters.watch)
                    .buildCall(null),
            V1Pod.class,
            V1PodList.class);
    ConcurrentLinkedQueue<String> added = new ConcurrentLinkedQueue<>();
    informer.addEventHandler(
        new ResourceEventHandler<>() {
          @Override
          public void onAdd(V1Pod pod) {
            added.add(pod.getMetadata().getName());
          }

          @Override
          public void onUpdate(V1Pod before, V1Pod pod) {}

          @Override
          public void onDelete(V1Pod pod, boolean unknown) {}
        });
    factory.startAllRegisteredInformers();
    try {
      eventually(
          "two pods run",
          () -> informer.getIndexer().list().stream().filter(pod -> "Running".equals(pod.getStatus().getPhase())).count() == 2);
      equal(added.size(), 2);
    } finally {
      factory.stopAllRegisteredInformers(true);
    }
  }

  private void dynamic(String namespace) throws Exception {
    core.createNamespacedConfigMap(namespace, configMap("one", Map.of("a", "1"))).execute();
    DynamicKubernetesApi maps = new DynamicKubernetesApi("", "v1", "configmaps", client);
    equal(maps.get(namespace, "one").getObject().getRaw().get("data").toString(), "{\"a\":\"1\"}");
    equal(maps.delete(namespace, "one").getHttpStatusCode(), 200);
    equal(maps.get(namespace, "one").getHttpStatusCode(), 404);
    DynamicKubernetesApi nodes = new DynamicKubernetesApi("", "v1", "nodes", client);
    equal(nodes.list().getObject().getItems().size(), 2);
  }
}
