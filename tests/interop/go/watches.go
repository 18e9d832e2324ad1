package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// Watches and everything that stands on them.
var watches = []check{
	{"watch", watchPlain},
	{"watch-selected", watchSelected},
	{"watch-initial-events", watchInitialEvents},
	{"watch-from-zero", watchFromZero},
	{"watch-times-out", watchTimesOut},
	{"watch-retried", watchRetried},
	{"watch-until", watchUntil},
	{"shared-informers", sharedInformers},
	{"informer-many-objects", informerManyObjects},
	{"informer-indexes", informerIndexes},
	{"informer-all-kinds", informerAllKinds},
	{"metadata-informer", metadataInformer},
}

func watchPlain(t *setting) error {
	maps := t.client.CoreV1().ConfigMaps(t.namespace)
	events, err := maps.Watch(t, metav1.ListOptions{FieldSelector: "metadata.name=seen"})
	if err != nil {
		return err
	}
	defer events.Stop()
	made, err := maps.Create(t, configMap("seen", nil), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	made.Data = map[string]string{"a": "1"}
	changed, err := maps.Update(t, made, metav1.UpdateOptions{})
	if err != nil {
		return err
	}
	if err := maps.Delete(t, "seen", metav1.DeleteOptions{}); err != nil {
		return err
	}
	added, errA := t.next(events)
	modified, errB := t.next(events)
	deleted, errC := t.next(events)
	if err := first(errA, errB, errC); err != nil {
		return err
	}
	last := deleted.Object.(*corev1.ConfigMap)
	return first(
		equal("types", []watch.EventType{added.Type, modified.Type, deleted.Type},
			[]watch.EventType{watch.Added, watch.Modified, watch.Deleted}),
		equal("what was modified", modified.Object, runtime.Object(changed)),
		equal("data of what was deleted", last.Data, changed.Data),
		holds("deleting moved the revision", last.ResourceVersion != changed.ResourceVersion),
	)
}

func watchSelected(t *setting) error {
	maps := t.client.CoreV1().ConfigMaps(t.namespace)
	events, err := maps.Watch(t, metav1.ListOptions{LabelSelector: "colour=red"})
	if err != nil {
		return err
	}
	defer events.Stop()
	if _, err := maps.Create(t, configMap("chameleon", nil), metav1.CreateOptions{}); err != nil {
		return err
	}
	for _, colour := range []string{"red", "green", "red"} {
		patch := fmt.Appendf(nil, `{"metadata":{"labels":{"colour":%q}}}`, colour)
		if _, err := maps.Patch(t, "chameleon", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return err
		}
	}
	var got []watch.EventType
	for range 3 {
		event, err := t.next(events)
		if err != nil {
			return err
		}
		got = append(got, event.Type)
	}
	return equal("types", got, []watch.EventType{watch.Added, watch.Deleted, watch.Added})
}

func watchInitialEvents(t *setting) error {
	if err := createMaps(t, 3); err != nil {
		return err
	}
	yes := true
	events, err := t.client.CoreV1().ConfigMaps(t.namespace).Watch(t, metav1.ListOptions{
		LabelSelector: "app=interop", SendInitialEvents: &yes, AllowWatchBookmarks: true,
		ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
	})
	if err != nil {
		return err
	}
	defer events.Stop()
	for range 3 {
		event := <-events.ResultChan()
		if err := equal("type", event.Type, watch.Added); err != nil {
			return err
		}
	}
	event := <-events.ResultChan()
	mark, is := event.Object.(*corev1.ConfigMap)
	return first(
		equal("the fourth", event.Type, watch.Bookmark),
		holds("it is of the kind", is),
		equal("its annotation", mark.Annotations[metav1.InitialEventsAnnotationKey], "true"),
		holds("it has a revision", mark.ResourceVersion != ""),
	)
}

func watchFromZero(t *setting) error {
	if err := createMaps(t, 3); err != nil {
		return err
	}
	selected := metav1.ListOptions{LabelSelector: "app=interop", ResourceVersion: "0"}
	events, err := t.client.CoreV1().ConfigMaps(t.namespace).Watch(t, selected)
	if err != nil {
		return err
	}
	defer events.Stop()
	for range 3 {
		event, err := t.next(events)
		if err := first(err, equal("type", event.Type, watch.Added)); err != nil {
			return err
		}
	}
	return nil
}

func watchTimesOut(t *setting) error {
	second := int64(1)
	start := time.Now()
	events, err := t.client.CoreV1().ConfigMaps(t.namespace).Watch(t, metav1.ListOptions{TimeoutSeconds: &second})
	if err != nil {
		return err
	}
	for event := range events.ResultChan() {
		if event.Type == watch.Error {
			return fmt.Errorf("it ended with %s", shown(event.Object))
		}
	}
	took := time.Since(start)
	return holds(fmt.Sprintf("%s is about a second", took), took > 900*time.Millisecond && took < 4*time.Second)
}

func watchRetried(t *setting) error {
	maps := t.client.CoreV1().ConfigMaps(t.namespace)
	listed, err := maps.List(t, metav1.ListOptions{})
	if err != nil {
		return err
	}
	second := int64(1)
	source := &cache.ListWatch{WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
		options.TimeoutSeconds = &second
		return maps.Watch(ctx, options)
	}}
	watcher, err := watchtools.NewRetryWatcherWithContext(t, listed.ResourceVersion, source)
	if err != nil {
		return err
	}
	defer watcher.Stop()
	for at := range 3 {
		name := fmt.Sprintf("over-time-%d", at)
		if _, err := maps.Create(t, configMap(name, nil), metav1.CreateOptions{}); err != nil {
			return err
		}
		for {
			event, err := t.next(watcher)
			if err != nil {
				return err
			}
			if got := event.Object.(*corev1.ConfigMap).Name; got == name {
				break
			} else if got != "kube-root-ca.crt" {
				return fmt.Errorf("got %s, want %s", got, name)
			}
		}
		time.Sleep(700 * time.Millisecond)
	}
	return nil
}

func watchUntil(t *setting) error {
	pods := t.client.CoreV1().Pods(t.namespace)
	body := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "runs"}, Spec: podSpec()}
	if _, err := pods.Create(t, body, metav1.CreateOptions{}); err != nil {
		return err
	}
	named := fields.OneTermEqualSelector("metadata.name", "runs")
	source := cache.NewListWatchFromClient(t.client.CoreV1().RESTClient(), "pods", t.namespace, named)
	ctx, cancel := context.WithTimeout(t, 20*time.Second)
	defer cancel()
	last, err := watchtools.UntilWithSync(ctx, source, &corev1.Pod{}, nil, func(event watch.Event) (bool, error) {
		pod, is := event.Object.(*corev1.Pod)
		return is && pod.Status.Phase == corev1.PodRunning, nil
	})
	if err != nil {
		return err
	}
	return holds("it has an address", last.Object.(*corev1.Pod).Status.PodIP != "")
}

// counted notes what an informer tells.
type counted struct {
	sync.Mutex
	added, updated, deleted int
}

func (c *counted) handler() cache.ResourceEventHandler {
	note := func(number *int) { c.Lock(); *number++; c.Unlock() }
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { note(&c.added) },
		UpdateFunc: func(any, any) { note(&c.updated) },
		DeleteFunc: func(any) { note(&c.deleted) },
	}
}

func (c *counted) is(added, updated, deleted int) bool {
	c.Lock()
	defer c.Unlock()
	return c.added == added && c.updated >= updated && c.deleted == deleted
}

func sharedInformers(t *setting) error {
	if err := createMaps(t, 5); err != nil {
		return err
	}
	tweak := informers.WithTweakListOptions(func(options *metav1.ListOptions) { options.LabelSelector = "app=interop" })
	factory := informers.NewSharedInformerFactoryWithOptions(t.client, 0, informers.WithNamespace(t.namespace), tweak)
	told := &counted{}
	informer := factory.Core().V1().ConfigMaps().Informer()
	if _, err := informer.AddEventHandler(told.handler()); err != nil {
		return err
	}
	pods := factory.Core().V1().Pods().Lister()
	ctx, cancel := context.WithCancel(t)
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	defer cancel()
	within, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	for kind, synced := range factory.WaitForCacheSync(within.Done()) {
		if !synced {
			return fmt.Errorf("%s did not sync", kind)
		}
	}
	maps := t.client.CoreV1().ConfigMaps(t.namespace)
	if _, err := maps.Create(t, configMap("late", nil), metav1.CreateOptions{}); err != nil {
		return err
	}
	patch := []byte(`{"data":{"a":"1"}}`)
	if _, err := maps.Patch(t, "late", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return err
	}
	if err := maps.Delete(t, "map-00", metav1.DeleteOptions{}); err != nil {
		return err
	}
	body := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Labels: map[string]string{"app": "interop"}}, Spec: podSpec()}
	if _, err := t.client.CoreV1().Pods(t.namespace).Create(t, body, metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := t.eventually("the changes are told", func() (bool, error) { return told.is(6, 1, 1), nil }); err != nil {
		return err
	}
	if err := t.eventually("the pod runs in the cache", func() (bool, error) {
		got, err := pods.Pods(t.namespace).Get("p")
		return err == nil && got.Status.Phase == corev1.PodRunning, err
	}); err != nil {
		return err
	}
	got, err := factory.Core().V1().ConfigMaps().Lister().ConfigMaps(t.namespace).Get("late")
	return first(err, equal("data", got.Data, map[string]string{"a": "1"}))
}

func informerManyObjects(t *setting) error {
	// More than two of the informer's pages.
	var group sync.WaitGroup
	failures := make([]error, 1100)
	slots := make(chan struct{}, 16)
	for at := range failures {
		group.Add(1)
		slots <- struct{}{}
		go func() {
			defer func() { <-slots; group.Done() }()
			body := configMap(fmt.Sprintf("many-%d", at), nil)
			_, failures[at] = t.client.CoreV1().ConfigMaps(t.namespace).Create(t, body, metav1.CreateOptions{})
		}()
	}
	group.Wait()
	if err := first(failures...); err != nil {
		return err
	}
	source := cache.NewListWatchFromClient(t.client.CoreV1().RESTClient(), "configmaps", t.namespace, fields.Everything())
	informer := cache.NewSharedIndexInformer(source, &corev1.ConfigMap{}, 0, cache.Indexers{})
	ctx, cancel := context.WithCancel(t)
	defer cancel()
	go informer.Run(ctx.Done())
	return t.eventually("all are known", func() (bool, error) {
		return informer.HasSynced() && len(informer.GetStore().ListKeys()) >= len(failures), nil
	})
}

func informerIndexes(t *setting) error {
	if err := createMaps(t, 4); err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactoryWithOptions(t.client, time.Second, informers.WithNamespace(t.namespace))
	informer := factory.Core().V1().ConfigMaps().Informer()
	if err := informer.AddIndexers(cache.Indexers{"even": func(object any) ([]string, error) {
		return []string{object.(*corev1.ConfigMap).Labels["even"]}, nil
	}}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(t)
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	defer cancel()
	return t.eventually("two are even", func() (bool, error) {
		found, err := informer.GetIndexer().ByIndex("even", "true")
		return len(found) == 2, err
	})
}

func informerAllKinds(t *setting) error {
	factory := informers.NewSharedInformerFactory(t.client, 0)
	factory.Admissionregistration().V1().ValidatingWebhookConfigurations().Informer()
	factory.Admissionregistration().V1().ValidatingAdmissionPolicies().Informer()
	factory.Apps().V1().ControllerRevisions().Informer()
	factory.Apps().V1().DaemonSets().Informer()
	factory.Apps().V1().Deployments().Informer()
	factory.Apps().V1().ReplicaSets().Informer()
	factory.Apps().V1().StatefulSets().Informer()
	factory.Autoscaling().V2().HorizontalPodAutoscalers().Informer()
	factory.Batch().V1().CronJobs().Informer()
	factory.Batch().V1().Jobs().Informer()
	factory.Certificates().V1().CertificateSigningRequests().Informer()
	factory.Coordination().V1().Leases().Informer()
	factory.Core().V1().Endpoints().Informer()
	factory.Core().V1().Events().Informer()
	factory.Core().V1().LimitRanges().Informer()
	factory.Core().V1().Namespaces().Informer()
	factory.Core().V1().Nodes().Informer()
	factory.Core().V1().PersistentVolumeClaims().Informer()
	factory.Core().V1().PersistentVolumes().Informer()
	factory.Core().V1().PodTemplates().Informer()
	factory.Core().V1().Pods().Informer()
	factory.Core().V1().ReplicationControllers().Informer()
	factory.Core().V1().ResourceQuotas().Informer()
	factory.Core().V1().Secrets().Informer()
	factory.Core().V1().ServiceAccounts().Informer()
	factory.Core().V1().Services().Informer()
	factory.Discovery().V1().EndpointSlices().Informer()
	factory.Events().V1().Events().Informer()
	factory.Flowcontrol().V1().FlowSchemas().Informer()
	factory.Flowcontrol().V1().PriorityLevelConfigurations().Informer()
	factory.Networking().V1().IngressClasses().Informer()
	factory.Networking().V1().Ingresses().Informer()
	factory.Networking().V1().NetworkPolicies().Informer()
	factory.Node().V1().RuntimeClasses().Informer()
	factory.Policy().V1().PodDisruptionBudgets().Informer()
	factory.Rbac().V1().ClusterRoleBindings().Informer()
	factory.Rbac().V1().ClusterRoles().Informer()
	factory.Rbac().V1().RoleBindings().Informer()
	factory.Rbac().V1().Roles().Informer()
	factory.Resource().V1().DeviceClasses().Informer()
	factory.Scheduling().V1().PriorityClasses().Informer()
	factory.Storage().V1().CSIDrivers().Informer()
	factory.Storage().V1().CSINodes().Informer()
	factory.Storage().V1().StorageClasses().Informer()
	factory.Storage().V1().VolumeAttachments().Informer()
	ctx, cancel := context.WithCancel(t)
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	defer cancel()
	within, stop := context.WithTimeout(ctx, 15*time.Second)
	defer stop()
	for kind, synced := range factory.WaitForCacheSync(within.Done()) {
		if !synced {
			return fmt.Errorf("%s did not sync", kind)
		}
	}
	node, err := factory.Core().V1().Nodes().Lister().Get("sim-1")
	return first(err, holds("the node has memory", node.Status.Capacity.Memory().Value() > 0))
}

func metadataInformer(t *setting) error {
	client, err := metadata.NewForConfig(metadata.ConfigFor(t.config))
	if err != nil {
		return err
	}
	if _, err := t.client.AppsV1().Deployments(t.namespace).Create(t, deployment("web", 0), metav1.CreateOptions{}); err != nil {
		return err
	}
	factory := metadatainformer.NewFilteredSharedInformerFactory(client, 0, t.namespace, nil)
	informer := factory.ForResource(appsv1.SchemeGroupVersion.WithResource("deployments"))
	informer.Informer()
	ctx, cancel := context.WithCancel(t)
	defer cancel()
	factory.Start(ctx.Done())
	return t.eventually("it is known", func() (bool, error) {
		found, err := informer.Lister().ByNamespace(t.namespace).Get("web")
		if err != nil {
			return false, err
		}
		return found.(*metav1.PartialObjectMetadata).UID != "", nil
	})
}
