package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/kubernetes/scheme"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/openapi3"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
)

// What controllers are built of: discovery, custom resources, leader election, events.
var machinery = []check{
	{"version", version},
	{"discovery", discover},
	{"discovery-before-aggregation", discoverLegacy},
	{"rest-mapper", restMapper},
	{"openapi-v3", openAPI},
	{"openapi-v2", openAPIOld},
	{"dynamic", dynamicBuiltIn},
	{"custom-resource", customResource},
	{"leader-election", leaderElection},
	{"events-core", eventsCore},
	{"events-new", eventsNew},
}

func version(t *setting) error {
	got, err := t.client.Discovery().ServerVersion()
	return first(err, equal("major", got.Major, "1"), holds("minor is a number", got.Minor >= "30"))
}

func discover(t *setting) error {
	groups, resources, err := t.client.Discovery().ServerGroupsAndResources()
	if err != nil {
		return err
	}
	if err := first(
		holds("there are groups", len(groups) > 15),
		holds("there are resources", len(resources) > 15),
	); err != nil {
		return err
	}
	preferred, err := discovery.ServerPreferredResources(t.client.Discovery())
	if err != nil {
		return err
	}
	listable := discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list", "watch"}}, preferred)
	var names []string
	for _, list := range listable {
		for _, resource := range list.APIResources {
			names = append(names, list.GroupVersion+" "+resource.Name)
		}
	}
	return first(
		holds("pods are listed", slices.Contains(names, "v1 pods")),
		holds("deployments are listed", slices.Contains(names, "apps/v1 deployments")),
		holds("bindings are not", !slices.Contains(names, "v1 bindings")),
		holds("the newest is preferred", slices.Contains(names, "autoscaling/v2 horizontalpodautoscalers")),
	)
}

// Both forms of discovery say the same.
func discoverLegacy(t *setting) error {
	flat := func(legacy bool) ([]string, error) {
		client, err := discovery.NewDiscoveryClientForConfig(t.config)
		if err != nil {
			return nil, err
		}
		client.UseLegacyDiscovery = legacy
		_, resources, err := client.ServerGroupsAndResources()
		if err != nil {
			return nil, err
		}
		var lines []string
		for _, list := range resources {
			for _, one := range list.APIResources {
				singular := one.SingularName
				if strings.Contains(one.Name, "/") {
					singular = "" // the client makes it up out of the newer form
				}
				lines = append(lines, fmt.Sprintln(
					list.GroupVersion, one.Name, one.Kind, singular, one.Namespaced, one.Verbs, one.ShortNames, one.Categories,
				))
			}
		}
		slices.Sort(lines)
		return lines, nil
	}
	old, err := flat(true)
	if err != nil {
		return err
	}
	now, err := flat(false)
	return first(err, equal("what only one says", apart(old, now), []string(nil)))
}

// apart are the lines that only one of the two has.
func apart(one, two []string) (lines []string) {
	for _, pair := range [][2][]string{{one, two}, {two, one}} {
		for _, line := range pair[0] {
			if !slices.Contains(pair[1], line) {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

func restMapper(t *setting) error {
	cached := memory.NewMemCacheClient(t.client.Discovery())
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(cached)
	mapping, err := mapper.RESTMapping(schema.GroupKind{Group: "apps", Kind: "Deployment"})
	if err := first(
		err,
		equal("resource", mapping.Resource, appsv1.SchemeGroupVersion.WithResource("deployments")),
		equal("scope", mapping.Scope.Name(), meta.RESTScopeNameNamespace),
	); err != nil {
		return err
	}
	short := restmapper.NewShortcutExpander(mapper, cached, func(string) {})
	kind, err := short.KindFor(schema.GroupVersionResource{Resource: "deploy"})
	if err := first(err, equal("deploy", kind, appsv1.SchemeGroupVersion.WithKind("Deployment"))); err != nil {
		return err
	}
	_, err = mapper.RESTMapping(schema.GroupKind{Group: "none", Kind: "Such"})
	return refused("an unknown kind", err, meta.IsNoMatchError)
}

func openAPI(t *setting) error {
	root := openapi3.NewRoot(t.client.Discovery().OpenAPIV3())
	versions, err := root.GroupVersions()
	if err := first(err, holds("apps/v1 is there", slices.Contains(versions, appsv1.SchemeGroupVersion))); err != nil {
		return err
	}
	spec, err := root.GVSpec(appsv1.SchemeGroupVersion)
	if err != nil {
		return err
	}
	_, path := spec.Paths.Paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]
	return first(
		holds("the schema is there", spec.Components.Schemas["io.k8s.api.apps.v1.Deployment"] != nil),
		holds("the path is there", path),
	)
}

func openAPIOld(t *setting) error {
	document, err := t.client.Discovery().OpenAPISchema()
	return first(err, equal("swagger", document.GetSwagger(), "2.0"))
}

func dynamicBuiltIn(t *setting) error {
	client, err := dynamic.NewForConfig(t.config)
	if err != nil {
		return err
	}
	apps := client.Resource(appsv1.SchemeGroupVersion.WithResource("deployments")).Namespace(t.namespace)
	body := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "web"},
		"spec": map[string]any{
			"replicas": int64(0),
			"selector": map[string]any{"matchLabels": map[string]any{"app": "web"}},
			"template": map[string]any{
				"metadata": map[string]any{"labels": map[string]any{"app": "web"}},
				"spec":     map[string]any{"containers": []any{map[string]any{"name": "main", "image": "example/main:1"}}},
			},
		},
	}}
	if _, err := apps.Create(t, body, metav1.CreateOptions{}); err != nil {
		return err
	}
	applied := body.DeepCopy()
	applied.SetLabels(map[string]string{"from": "apply"})
	got, err := apps.Apply(t, "web", applied, metav1.ApplyOptions{FieldManager: "tester", Force: true})
	if err := first(err, equal("labels", got.GetLabels(), map[string]string{"from": "apply"})); err != nil {
		return err
	}
	listed, err := apps.List(t, metav1.ListOptions{Limit: 1})
	return first(err, equal("kind of the list", listed.GetKind(), "DeploymentList"), equal("how many", len(listed.Items), 1))
}

const crd = `{
"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"PLURAL.interop.dure.dev"},
"spec":{"group":"interop.dure.dev","scope":"Namespaced",
 "names":{"plural":"PLURAL","singular":"SINGULAR","kind":"KIND","shortNames":["SHORT"]},
 "versions":[{"name":"v1","served":true,"storage":true,
  "subresources":{"status":{},"scale":{"specReplicasPath":".spec.replicas","statusReplicasPath":".status.replicas"}},
  "additionalPrinterColumns":[{"name":"Size","type":"integer","jsonPath":".spec.replicas"}],
  "schema":{"openAPIV3Schema":{"type":"object","properties":{
   "spec":{"type":"object","required":["colour"],"properties":{
    "colour":{"type":"string","enum":["red","green"]},"replicas":{"type":"integer","default":2,"maximum":9},
    "parts":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["name"],
     "items":{"type":"object","required":["name"],"properties":{"name":{"type":"string"},"size":{"type":"integer"}}}}}},
   "status":{"type":"object","properties":{"replicas":{"type":"integer"},"phase":{"type":"string"}}}}}}}]}}`

func customResource(t *setting) error {
	client, err := dynamic.NewForConfig(t.config)
	if err != nil {
		return err
	}
	singular := "w" + strings.ReplaceAll(t.namespace, "-", "")
	kind := strings.ToUpper(singular[:1]) + singular[1:]
	text := strings.NewReplacer("PLURAL", singular+"s", "SINGULAR", singular, "KIND", kind, "SHORT", singular+"x").Replace(crd)
	definition := &unstructured.Unstructured{}
	if err := definition.UnmarshalJSON([]byte(text)); err != nil {
		return err
	}
	definitions := client.Resource(schema.GroupVersionResource{
		Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions",
	})
	if _, err := definitions.Create(t, definition, metav1.CreateOptions{}); err != nil {
		return err
	}
	defer func() { _ = definitions.Delete(context.Background(), definition.GetName(), metav1.DeleteOptions{}) }()
	if err := t.eventually("the definition is established", func() (bool, error) {
		got, err := definitions.Get(t, definition.GetName(), metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		conditions, _, err := unstructured.NestedSlice(got.Object, "status", "conditions")
		for _, one := range conditions {
			if one := one.(map[string]any); one["type"] == "Established" && one["status"] == "True" {
				return true, err
			}
		}
		return false, err
	}); err != nil {
		return err
	}
	resource := schema.GroupVersionResource{Group: "interop.dure.dev", Version: "v1", Resource: singular + "s"}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(t.client.Discovery()))
	mapping, err := mapper.RESTMapping(schema.GroupKind{Group: "interop.dure.dev", Kind: kind})
	if err := first(err, equal("the mapping", mapping.Resource, resource)); err != nil {
		return err
	}
	return useCustomResource(t, client, resource, kind)
}

func useCustomResource(t *setting, client dynamic.Interface, resource schema.GroupVersionResource, kind string) error {
	widgets := client.Resource(resource).Namespace(t.namespace)
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, 0, t.namespace, nil)
	told := &counted{}
	informer := factory.ForResource(resource).Informer()
	if _, err := informer.AddEventHandler(told.handler()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(t)
	defer cancel()
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return fmt.Errorf("the informer did not sync")
	}
	widget := func(spec map[string]any) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": resource.GroupVersion().String(), "kind": kind,
			"metadata": map[string]any{"name": "one"}, "spec": spec,
		}}
	}
	_, err := widgets.Create(t, widget(map[string]any{"colour": "blue"}), metav1.CreateOptions{})
	if err := refused("a colour that is none", err, apierrors.IsInvalid); err != nil {
		return err
	}
	made, err := widgets.Create(t, widget(map[string]any{"colour": "red"}), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	replicas, _, _ := unstructured.NestedInt64(made.Object, "spec", "replicas")
	if err := equal("default", replicas, int64(2)); err != nil {
		return err
	}
	_ = unstructured.SetNestedField(made.Object, "Done", "status", "phase")
	stated, err := widgets.UpdateStatus(t, made, metav1.UpdateOptions{})
	if err := first(err, equal("generation after a status", stated.GetGeneration(), int64(1))); err != nil {
		return err
	}
	for name, size := range map[string]int64{"a": 1, "b": 2} {
		body := widget(map[string]any{"parts": []any{map[string]any{"name": name, "size": size}}, "colour": "red"})
		if _, err := widgets.Apply(t, "one", body, metav1.ApplyOptions{FieldManager: name, Force: true}); err != nil {
			return err
		}
	}
	patch := []byte(`{"spec":{"replicas":5}}`)
	scaled, err := widgets.Patch(t, "one", types.MergePatchType, patch, metav1.PatchOptions{}, "scale")
	if err := first(err, equal("kind of a scale", scaled.GetKind(), "Scale")); err != nil {
		return err
	}
	got, err := widgets.Get(t, "one", metav1.GetOptions{})
	if err != nil {
		return err
	}
	parts, _, _ := unstructured.NestedSlice(got.Object, "spec", "parts")
	replicas, _, _ = unstructured.NestedInt64(got.Object, "spec", "replicas")
	if err := first(equal("parts", len(parts), 2), equal("replicas", replicas, int64(5))); err != nil {
		return err
	}
	_, err = widgets.Patch(t, "one", types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if err := refused("a strategic patch", err, apierrors.IsUnsupportedMediaType); err != nil {
		return err
	}
	if err := widgets.Delete(t, "one", metav1.DeleteOptions{}); err != nil {
		return err
	}
	return t.eventually("the informer told of it", func() (bool, error) { return told.is(1, 3, 1), nil })
}

func leaderElection(t *setting) error {
	elector := func(name string, leads chan<- string, lost chan<- string) (*leaderelection.LeaderElector, error) {
		lock, err := resourcelock.New(resourcelock.LeasesResourceLock, t.namespace, "leader", t.client.CoreV1(),
			t.client.CoordinationV1(), resourcelock.ResourceLockConfig{Identity: name})
		if err != nil {
			return nil, err
		}
		return leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: lock, ReleaseOnCancel: true, Name: name,
			LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 200 * time.Millisecond,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { leads <- name },
				OnStoppedLeading: func() { lost <- name },
			},
		})
	}
	leads, lost := make(chan string, 2), make(chan string, 2)
	one, errOne := elector("one", leads, lost)
	two, errTwo := elector("two", leads, lost)
	if err := first(errOne, errTwo); err != nil {
		return err
	}
	contextOne, stopOne := context.WithCancel(t)
	contextTwo, stopTwo := context.WithCancel(t)
	defer stopTwo()
	defer stopOne()
	await := func(names <-chan string, want string) error {
		select {
		case got := <-names:
			return equal("the name", got, want)
		case <-time.After(10 * time.Second):
			return fmt.Errorf("%s is not told in 10 seconds", want)
		}
	}
	go one.Run(contextOne)
	if err := await(leads, "one"); err != nil {
		return err
	}
	go two.Run(contextTwo)
	time.Sleep(700 * time.Millisecond)
	stopOne()
	if err := first(await(lost, "one"), await(leads, "two")); err != nil {
		return err
	}
	var lease *coordinationv1.Lease
	lease, err := t.client.CoordinationV1().Leases(t.namespace).Get(t, "leader", metav1.GetOptions{})
	return first(
		err,
		equal("holder", *lease.Spec.HolderIdentity, "two"),
		holds("it changed hands", *lease.Spec.LeaseTransitions >= 1),
		holds("the time has microseconds", lease.Spec.RenewTime.Nanosecond() != 0),
	)
}

func eventsCore(t *setting) error {
	made, err := t.client.CoreV1().ConfigMaps(t.namespace).Create(t, configMap("about", nil), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	broadcaster := record.NewBroadcaster()
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcore.EventSinkImpl{Interface: t.client.CoreV1().Events(t.namespace)})
	recorder := broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "interop"})
	for range 3 {
		recorder.Eventf(made, corev1.EventTypeWarning, "Checked", "checked %s", "it")
	}
	return t.eventually("one event counts three", func() (bool, error) {
		found, err := t.client.CoreV1().Events(t.namespace).Search(scheme.Scheme, made)
		if err != nil || len(found.Items) != 1 {
			return false, err
		}
		got := found.Items[0]
		return got.Count == 3 && got.Message == "checked it" && got.InvolvedObject.UID == made.UID, nil
	})
}

func eventsNew(t *setting) error {
	made, err := t.client.CoreV1().ConfigMaps(t.namespace).Create(t, configMap("about", nil), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: t.client.EventsV1()})
	defer broadcaster.Shutdown()
	if err := broadcaster.StartRecordingToSinkWithContext(t); err != nil {
		return err
	}
	recorder := broadcaster.NewRecorder(scheme.Scheme, "interop.dure.dev/checker")
	for range 3 {
		recorder.Eventf(made, nil, corev1.EventTypeNormal, "Checked", "Checking", "checked %s", "it")
	}
	return t.eventually("the event is in both groups", func() (bool, error) {
		found, err := t.client.EventsV1().Events(t.namespace).List(t, metav1.ListOptions{})
		if err != nil || len(found.Items) == 0 {
			return false, err
		}
		var got eventsv1.Event = found.Items[0]
		old, err := t.client.CoreV1().Events(t.namespace).Get(t, got.Name, metav1.GetOptions{})
		return err == nil && got.Note == "checked it" && old.Message == "checked it" && old.ReportingController != "" &&
			got.Regarding.UID == made.UID && old.InvolvedObject.UID == made.UID, err
	})
}
