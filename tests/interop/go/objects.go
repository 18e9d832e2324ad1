package main

import (
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// Objects through the typed client: what comes back, page by page, and how refusals are told apart.
var objects = []check{
	{"create-get-update-delete", createGetUpdateDelete},
	{"generate-name", generateName},
	{"dry-run", dryRun},
	{"binary-data", binaryData},
	{"list-in-pages", listInPages},
	{"list-selected", listSelected},
	{"list-all-namespaces", listAllNamespaces},
	{"delete-collection", deleteCollection},
	{"delete-preconditions", deletePreconditions},
	{"delete-in-foreground", deleteInForeground},
	{"conflict", conflict},
	{"refusals", refusals},
	{"invalid-with-causes", invalidWithCauses},
	{"expired-continue", expiredContinue},
	{"warnings", warnings},
	{"pod-subresources", podSubresources},
	{"eviction", eviction},
	{"namespace-finalizers", namespaceFinalizers},
	{"metadata-client", metadataClient},
	{"raw-paths", rawPaths},
}

func createGetUpdateDelete(t *setting) error {
	maps := t.client.CoreV1().ConfigMaps(t.namespace)
	made, err := maps.Create(t, configMap("one", map[string]string{"a": "1"}), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	got, err := maps.Get(t, "one", metav1.GetOptions{})
	if err := first(err, equal("what was read", got, made)); err != nil {
		return err
	}
	got.Data["b"] = "2"
	changed, err := maps.Update(t, got, metav1.UpdateOptions{FieldManager: "tester"})
	if err := first(
		err,
		equal("data", changed.Data, map[string]string{"a": "1", "b": "2"}),
		equal("uid", changed.UID, made.UID),
		holds("the revision moved", changed.ResourceVersion != made.ResourceVersion),
		holds("the manager is noted", len(changed.ManagedFields) > 0),
	); err != nil {
		return err
	}
	same, err := maps.Update(t, changed, metav1.UpdateOptions{FieldManager: "tester"})
	if err := first(err, equal("revision after no change", same.ResourceVersion, changed.ResourceVersion)); err != nil {
		return err
	}
	if err := maps.Delete(t, "one", metav1.DeleteOptions{}); err != nil {
		return err
	}
	_, err = maps.Get(t, "one", metav1.GetOptions{})
	return refused("reading what was deleted", err, apierrors.IsNotFound)
}

func generateName(t *setting) error {
	body := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "made-"}, StringData: map[string]string{"key": "value"},
	}
	made, err := t.client.CoreV1().Secrets(t.namespace).Create(t, body, metav1.CreateOptions{})
	return first(
		err,
		holds("five letters follow", len(made.Name) == len("made-")+5),
		equal("data", made.Data, map[string][]byte{"key": []byte("value")}),
		equal("type", made.Type, corev1.SecretTypeOpaque),
	)
}

func dryRun(t *setting) error {
	maps := t.client.CoreV1().ConfigMaps(t.namespace)
	made, err := maps.Create(t, configMap("dry", nil), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err := first(err, holds("it has a uid", made.UID != "")); err != nil {
		return err
	}
	_, err = maps.Get(t, "dry", metav1.GetOptions{})
	return refused("reading what was only tried", err, apierrors.IsNotFound)
}

func binaryData(t *setting) error {
	all := make([]byte, 256)
	for at := range all {
		all[at] = byte(at)
	}
	body := configMap("binary", map[string]string{"text": "두레 \u0000 \U0001F33E"})
	body.BinaryData = map[string][]byte{"all": all}
	if _, err := t.client.CoreV1().ConfigMaps(t.namespace).Create(t, body, metav1.CreateOptions{}); err != nil {
		return err
	}
	got, err := t.client.CoreV1().ConfigMaps(t.namespace).Get(t, "binary", metav1.GetOptions{})
	return first(err, equal("text", got.Data, body.Data), equal("bytes", got.BinaryData["all"], all))
}

func createMaps(t *setting, number int) error {
	for at := range number {
		body := configMap(fmt.Sprintf("map-%02d", at), map[string]string{"filling": strings.Repeat("x", 10000)})
		body.Labels["even"] = fmt.Sprint(at%2 == 0)
		if _, err := t.client.CoreV1().ConfigMaps(t.namespace).Create(t, body, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	return nil
}

func listInPages(t *setting) error {
	maps := t.client.CoreV1().ConfigMaps(t.namespace)
	if err := createMaps(t, 25); err != nil {
		return err
	}
	whole, err := maps.List(t, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var names []string
	var revisions []string
	options := metav1.ListOptions{Limit: 10}
	for {
		page, err := maps.List(t, options)
		if err != nil {
			return err
		}
		for _, item := range page.Items {
			names = append(names, item.Name)
		}
		revisions = append(revisions, page.ResourceVersion)
		if page.Continue == "" {
			break
		}
		left := int64(len(whole.Items) - len(names))
		if err := first(
			holds("what remains is told", page.RemainingItemCount != nil),
			equal("what remains", *page.RemainingItemCount, left),
		); err != nil {
			return err
		}
		if len(names) == 10 {
			// The following pages show the list as it was.
			if err := maps.Delete(t, "map-20", metav1.DeleteOptions{}); err != nil {
				return err
			}
		}
		options.Continue = page.Continue
	}
	var want []string
	for _, item := range whole.Items {
		want = append(want, item.Name)
	}
	return first(
		equal("the names", names, want),
		equal("the pages' revisions", revisions, []string{revisions[0], revisions[0], revisions[0]}),
	)
}

func listSelected(t *setting) error {
	if err := createMaps(t, 4); err != nil {
		return err
	}
	count := func(options metav1.ListOptions) int {
		found, err := t.client.CoreV1().ConfigMaps(t.namespace).List(t, options)
		if err != nil {
			return -1
		}
		return len(found.Items)
	}
	return first(
		equal("even", count(metav1.ListOptions{LabelSelector: "even=true"}), 2),
		equal("set", count(metav1.ListOptions{LabelSelector: "even in (true,false),app!=other"}), 4),
		equal("absent", count(metav1.ListOptions{LabelSelector: "app,!even"}), 0),
		equal("by name", count(metav1.ListOptions{FieldSelector: "metadata.name=map-02"}), 1),
		equal("bad field", count(metav1.ListOptions{FieldSelector: "data.x=1"}), -1),
		equal("at any revision", count(metav1.ListOptions{ResourceVersion: "0", LabelSelector: "even"}), 4),
	)
}

func listAllNamespaces(t *setting) error {
	if err := createMaps(t, 2); err != nil {
		return err
	}
	options := metav1.ListOptions{LabelSelector: "app=interop", FieldSelector: "metadata.namespace=" + t.namespace}
	found, err := t.client.CoreV1().ConfigMaps("").List(t, options)
	return first(err, equal("how many", len(found.Items), 2))
}

func deleteCollection(t *setting) error {
	maps := t.client.CoreV1().ConfigMaps(t.namespace)
	if err := createMaps(t, 4); err != nil {
		return err
	}
	selected := metav1.ListOptions{LabelSelector: "even=true"}
	if err := maps.DeleteCollection(t, metav1.DeleteOptions{}, selected); err != nil {
		return err
	}
	left, err := maps.List(t, metav1.ListOptions{LabelSelector: "app=interop"})
	return first(err, equal("how many are left", len(left.Items), 2))
}

func deletePreconditions(t *setting) error {
	maps := t.client.CoreV1().ConfigMaps(t.namespace)
	made, err := maps.Create(t, configMap("kept", nil), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	other := types.UID("00000000-0000-0000-0000-000000000000")
	stale := "1"
	err = maps.Delete(t, "kept", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &other}})
	if err := refused("deleting another uid", err, apierrors.IsConflict); err != nil {
		return err
	}
	err = maps.Delete(t, "kept", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &stale}})
	if err := refused("deleting another revision", err, apierrors.IsConflict); err != nil {
		return err
	}
	return maps.Delete(t, "kept", *metav1.NewRVDeletionPrecondition(made.ResourceVersion))
}

func deleteInForeground(t *setting) error {
	maps := t.client.CoreV1().ConfigMaps(t.namespace)
	owner, err := maps.Create(t, configMap("owner", nil), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	block := true
	owned := configMap("owned", nil)
	owned.Finalizers = []string{"interop.dure.dev/hold"}
	owned.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID, BlockOwnerDeletion: &block,
	}}
	if _, err := maps.Create(t, owned, metav1.CreateOptions{}); err != nil {
		return err
	}
	foreground := metav1.DeletePropagationForeground
	if err := maps.Delete(t, "owner", metav1.DeleteOptions{PropagationPolicy: &foreground}); err != nil {
		return err
	}
	held, err := maps.Get(t, "owner", metav1.GetOptions{})
	if err := first(
		err,
		holds("the owner is being deleted", held.DeletionTimestamp != nil),
		equal("its finalizers", held.Finalizers, []string{metav1.FinalizerDeleteDependents}),
	); err != nil {
		return err
	}
	if err := t.eventually("the dependent is being deleted", func() (bool, error) {
		got, err := maps.Get(t, "owned", metav1.GetOptions{})
		return err == nil && got.DeletionTimestamp != nil, err
	}); err != nil {
		return err
	}
	release := []byte(`{"metadata": {"finalizers": null}}`)
	if _, err := maps.Patch(t, "owned", types.MergePatchType, release, metav1.PatchOptions{}); err != nil {
		return err
	}
	return t.eventually("the owner goes", func() (bool, error) {
		_, err := maps.Get(t, "owner", metav1.GetOptions{})
		return apierrors.IsNotFound(err), nil
	})
}

func conflict(t *setting) error {
	maps := t.client.CoreV1().ConfigMaps(t.namespace)
	made, err := maps.Create(t, configMap("fought-over", map[string]string{"n": "0"}), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	mine, theirs := made.DeepCopy(), made.DeepCopy()
	mine.Data["n"], theirs.Data["n"] = "1", "2"
	if _, err := maps.Update(t, mine, metav1.UpdateOptions{}); err != nil {
		return err
	}
	_, err = maps.Update(t, theirs, metav1.UpdateOptions{})
	if err := refused("a stale update", err, apierrors.IsConflict); err != nil {
		return err
	}
	details := err.(apierrors.APIStatus).Status().Details
	return first(equal("kind", details.Kind, "configmaps"), equal("name", details.Name, "fought-over"))
}

func refusals(t *setting) error {
	maps := t.client.CoreV1().ConfigMaps(t.namespace)
	if _, err := maps.Create(t, configMap("here", nil), metav1.CreateOptions{}); err != nil {
		return err
	}
	_, missing := maps.Get(t, "missing", metav1.GetOptions{})
	_, twice := maps.Create(t, configMap("here", nil), metav1.CreateOptions{})
	_, nameless := maps.Create(t, &corev1.ConfigMap{}, metav1.CreateOptions{})
	wrongNamespace := configMap("elsewhere", nil)
	wrongNamespace.Namespace = "default"
	_, elsewhere := maps.Create(t, wrongNamespace, metav1.CreateOptions{})
	_, homeless := t.client.CoreV1().ConfigMaps("no-such").Create(t, configMap("x", nil), metav1.CreateOptions{})
	_, patched := maps.Patch(t, "here", types.JSONPatchType, []byte(`[{"op":"remove","path":"/data/none"}]`), metav1.PatchOptions{})
	_, garbled := maps.Patch(t, "here", types.MergePatchType, []byte(`{`), metav1.PatchOptions{})
	unknown := t.client.CoreV1().RESTClient().Get().Resource("nonsense").Do(t).Error()
	unsupported := t.client.CoreV1().RESTClient().Delete().Namespace(t.namespace).Resource("bindings").Do(t).Error()
	anonymous := rest.AnonymousClientConfig(t.config)
	anonymous.BearerToken = "nonsense"
	stranger, err := kubernetes.NewForConfig(anonymous)
	if err != nil {
		return err
	}
	_, unauthorized := stranger.CoreV1().Pods(t.namespace).List(t, metav1.ListOptions{})
	return first(
		refused("a missing object", missing, apierrors.IsNotFound),
		refused("a second of a name", twice, apierrors.IsAlreadyExists),
		refused("a missing name", nameless, apierrors.IsInvalid),
		refused("another namespace", elsewhere, apierrors.IsBadRequest),
		refused("a missing namespace", homeless, apierrors.IsNotFound),
		refused("a patch that does not fit", patched, apierrors.IsInvalid),
		refused("a patch that is none", garbled, apierrors.IsBadRequest),
		refused("an unknown resource", unknown, apierrors.IsNotFound),
		refused("an unsupported verb", unsupported, apierrors.IsMethodNotSupported),
		refused("a bad token", unauthorized, apierrors.IsUnauthorized),
	)
}

func invalidWithCauses(t *setting) error {
	body := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "Bad_Name"}}
	_, err := t.client.CoreV1().Pods(t.namespace).Create(t, body, metav1.CreateOptions{})
	if err := refused("a bad pod", err, apierrors.IsInvalid); err != nil {
		return err
	}
	var fields []string
	for _, cause := range err.(apierrors.APIStatus).Status().Details.Causes {
		fields = append(fields, string(cause.Type)+" "+cause.Field)
	}
	_, named := apierrors.StatusCause(err, metav1.CauseTypeFieldValueRequired)
	return first(
		equal("the causes", fields, []string{"FieldValueInvalid metadata.name", "FieldValueRequired spec.containers"}),
		holds("the cause is found by type", named),
	)
}

func expiredContinue(t *setting) error {
	_, err := t.client.CoreV1().ConfigMaps(t.namespace).List(t, metav1.ListOptions{Limit: 1, Continue: "nonsense"})
	return refused("a bad continue token", err, apierrors.IsBadRequest)
}

type heard struct{ texts []string }

func (h *heard) HandleWarningHeader(code int, _ string, text string) {
	h.texts = append(h.texts, fmt.Sprintf("%d %s", code, text))
}

func warnings(t *setting) error {
	listener := &heard{}
	t.config.WarningHandler = listener
	client, err := kubernetes.NewForConfig(t.config)
	if err != nil {
		return err
	}
	request := client.CoreV1().RESTClient().Post().Namespace(t.namespace).Resource("configmaps")
	request.SetHeader("Content-Type", "application/json").Param("fieldValidation", metav1.FieldValidationWarn)
	body := []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"warned"},"dtaa":{}}`)
	err = request.Body(body).Do(t).Error()
	return first(err, equal("the warnings", listener.texts, []string{`299 unknown field "dtaa"`}))
}

func podSubresources(t *setting) error {
	pods := t.client.CoreV1().Pods(t.namespace)
	body := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "sub"}, Spec: podSpec()}
	body.Spec.SchedulerName = "nobody"
	made, err := pods.Create(t, body, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	made.Status.Message = "said"
	made.Spec.Containers[0].Image = "ignored"
	stated, err := pods.UpdateStatus(t, made, metav1.UpdateOptions{})
	if err := first(
		err,
		equal("message", stated.Status.Message, "said"),
		equal("image", stated.Spec.Containers[0].Image, "example/main:1"),
	); err != nil {
		return err
	}
	stated.Spec.EphemeralContainers = []corev1.EphemeralContainer{{
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "busybox"},
	}}
	debugged, err := pods.UpdateEphemeralContainers(t, "sub", stated, metav1.UpdateOptions{})
	if err := first(err, equal("ephemeral", len(debugged.Spec.EphemeralContainers), 1)); err != nil {
		return err
	}
	binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "sub"}, Target: corev1.ObjectReference{Name: "sim-1"}}
	if err := pods.Bind(t, binding, metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := t.eventually("the pod runs", func() (bool, error) {
		got, err := pods.Get(t, "sub", metav1.GetOptions{})
		return err == nil && got.Status.Phase == corev1.PodRunning && got.Spec.NodeName == "sim-1", err
	}); err != nil {
		return err
	}
	return refused("binding twice", pods.Bind(t, binding, metav1.CreateOptions{}), apierrors.IsConflict)
}

func eviction(t *setting) error {
	pods := t.client.CoreV1().Pods(t.namespace)
	body := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "evicted"}, Spec: podSpec()}
	if _, err := pods.Create(t, body, metav1.CreateOptions{}); err != nil {
		return err
	}
	evict := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "evicted", Namespace: t.namespace}}
	if err := t.client.PolicyV1().Evictions(t.namespace).Evict(t, evict); err != nil {
		return err
	}
	return t.eventually("the pod goes", func() (bool, error) {
		got, err := pods.Get(t, "evicted", metav1.GetOptions{})
		return apierrors.IsNotFound(err) || (err == nil && got.DeletionTimestamp != nil), nil
	})
}

func namespaceFinalizers(t *setting) error {
	spaces := t.client.CoreV1().Namespaces()
	body := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "finalized-"}}
	body.Spec.Finalizers = []corev1.FinalizerName{"interop.dure.dev/hold"}
	made, err := spaces.Create(t, body, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if err := spaces.Delete(t, made.Name, metav1.DeleteOptions{}); err != nil {
		return err
	}
	if err := t.eventually("only our finalizer is left", func() (bool, error) {
		got, err := spaces.Get(t, made.Name, metav1.GetOptions{})
		return err == nil && got.Status.Phase == corev1.NamespaceTerminating && len(got.Spec.Finalizers) == 1, err
	}); err != nil {
		return err
	}
	left, err := spaces.Get(t, made.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	left.Spec.Finalizers = nil
	if _, err := spaces.Finalize(t, left, metav1.UpdateOptions{}); err != nil {
		return err
	}
	return t.eventually("the namespace goes", func() (bool, error) {
		_, err := spaces.Get(t, made.Name, metav1.GetOptions{})
		return apierrors.IsNotFound(err), nil
	})
}

func metadataClient(t *setting) error {
	if err := createMaps(t, 3); err != nil {
		return err
	}
	client, err := metadata.NewForConfig(metadata.ConfigFor(t.config))
	if err != nil {
		return err
	}
	maps := client.Resource(corev1.SchemeGroupVersion.WithResource("configmaps")).Namespace(t.namespace)
	listed, err := maps.List(t, metav1.ListOptions{LabelSelector: "app=interop"})
	if err := first(err, equal("how many", len(listed.Items), 3)); err != nil {
		return err
	}
	got, err := maps.Get(t, "map-01", metav1.GetOptions{})
	if err := first(
		err,
		equal("labels", got.Labels, map[string]string{"app": "interop", "even": "false"}),
	); err != nil {
		return err
	}
	events, err := maps.Watch(t, metav1.ListOptions{ResourceVersion: listed.ResourceVersion})
	if err != nil {
		return err
	}
	defer events.Stop()
	patch := []byte(`{"metadata":{"labels":{"more":"yes"}}}`)
	if _, err := maps.Patch(t, "map-01", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return err
	}
	event, err := t.next(events)
	if err != nil {
		return err
	}
	seen, partial := event.Object.(*metav1.PartialObjectMetadata)
	if err := first(holds("the event is metadata", partial), equal("label", seen.Labels["more"], "yes")); err != nil {
		return err
	}
	return maps.Delete(t, "map-01", metav1.DeleteOptions{})
}

func rawPaths(t *setting) error {
	client := t.client.Discovery().RESTClient()
	for _, path := range []string{"/healthz", "/readyz", "/livez"} {
		body, err := client.Get().AbsPath(path).DoRaw(t)
		if err := first(err, equal(path, string(body), "ok")); err != nil {
			return err
		}
	}
	status := &appsv1.DeploymentList{}
	return t.client.AppsV1().RESTClient().Get().Resource("deployments").Do(t).Into(status)
}
