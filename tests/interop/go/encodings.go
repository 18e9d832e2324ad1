package main

import (
	_ "embed"
	"errors"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// The same objects by JSON and by protobuf.
var encodings = []check{
	{"written-alike", writtenAlike},
	{"listed-alike", listedAlike},
}

//go:embed full.yaml
var full string

// plain speaks to any path in any encoding.
func plain(t *setting) (rest.Interface, error) {
	config := rest.CopyConfig(t.config)
	config.GroupVersion = &schema.GroupVersion{}
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	return rest.UnversionedRESTClientFor(config)
}

func encode(object runtime.Object, mediaType string) ([]byte, error) {
	if mediaType == runtime.ContentTypeProtobuf {
		return runtime.Encode(protobuf.NewSerializer(scheme.Scheme, scheme.Scheme), object)
	}
	info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), mediaType)
	return runtime.Encode(info.Serializer, object)
}

func decode(data []byte) (runtime.Object, error) {
	return runtime.Decode(scheme.Codecs.UniversalDeserializer(), data)
}

// Sent and received in each of the four ways, a full object comes back the same.
func writtenAlike(t *setting) error {
	client, err := plain(t)
	if err != nil {
		return err
	}
	groups, err := restmapper.GetAPIGroupResources(t.client.Discovery())
	if err != nil {
		return err
	}
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	var problems []error
	for _, document := range strings.Split(strings.ReplaceAll(full, "NAMESPACE", t.namespace), "\n---\n") {
		text, err := yaml.ToJSON([]byte(document))
		if err != nil {
			return err
		}
		object, err := decode(text)
		if err != nil {
			return err
		}
		problems = append(problems, writeAlike(t, client, mapper, object))
	}
	return errors.Join(problems...)
}

func writeAlike(t *setting, client rest.Interface, mapper meta.RESTMapper, object runtime.Object) error {
	kind := object.GetObjectKind().GroupVersionKind()
	mapping, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return err
	}
	path := "/apis/" + kind.GroupVersion().String()
	if kind.Group == "" {
		path = "/api/v1"
	}
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		path += "/namespaces/" + t.namespace
	}
	var before runtime.Object
	for _, sent := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
		body, err := encode(object, sent)
		if err != nil {
			return err
		}
		for _, wanted := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
			request := client.Post().AbsPath(path, mapping.Resource.Resource).Param("dryRun", metav1.DryRunAll)
			request.Param("fieldValidation", metav1.FieldValidationStrict)
			data, err := request.SetHeader("Content-Type", sent).SetHeader("Accept", wanted).Body(body).DoRaw(t)
			if err != nil {
				return fmt.Errorf("%s by %s: %w: %s", kind.Kind, sent, err, data)
			}
			got, err := decode(data)
			if err != nil {
				return fmt.Errorf("%s by %s for %s: %w", kind.Kind, sent, wanted, err)
			}
			if err := forget(got); err != nil {
				return err
			}
			if before == nil {
				before = got
			}
			if err := alike(fmt.Sprintf("%s by %s for %s", kind.Kind, sent, wanted), before, got); err != nil {
				return err
			}
		}
	}
	return nil
}

// forget removes what differs from one creation to the next.
func forget(object runtime.Object) error {
	data, err := meta.Accessor(object)
	if err != nil {
		return err
	}
	data.SetUID("")
	data.SetCreationTimestamp(metav1.Time{})
	data.SetManagedFields(nil)
	data.SetResourceVersion("")
	if set, is := object.(*appsv1.StatefulSet); is {
		for at := range set.Spec.VolumeClaimTemplates {
			set.Spec.VolumeClaimTemplates[at].TypeMeta = metav1.TypeMeta{} // protobuf has no place for it
		}
	}
	return nil
}

// Every list of the platform is the same in both.
func listedAlike(t *setting) error {
	client, err := plain(t)
	if err != nil {
		return err
	}
	preferred, err := discovery.ServerPreferredResources(t.client.Discovery())
	if err != nil {
		return err
	}
	for _, list := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list"}}, preferred) {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return err
		}
		for _, one := range list.APIResources {
			if !scheme.Scheme.Recognizes(version.WithKind(one.Kind)) {
				continue
			}
			path := "/apis/" + list.GroupVersion + "/" + one.Name
			if version.Group == "" {
				path = "/api/v1/" + one.Name
			}
			if err := listAlike(t, client, path); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
	}
	return nil
}

// The second list is of the first one's revision, whatever has changed between the two.
func listAlike(t *setting, client rest.Interface, path string) error {
	byJSON, err := client.Get().AbsPath(path).SetHeader("Accept", runtime.ContentTypeJSON).DoRaw(t)
	if err != nil {
		return err
	}
	one, err := decode(byJSON)
	if err != nil {
		return err
	}
	data, err := meta.ListAccessor(one)
	if err != nil {
		return err
	}
	request := client.Get().AbsPath(path).SetHeader("Accept", runtime.ContentTypeProtobuf)
	request.Param("resourceVersion", data.GetResourceVersion()).Param("resourceVersionMatch", "Exact")
	byProtobuf, err := request.DoRaw(t)
	if err != nil {
		return err
	}
	two, err := decode(byProtobuf)
	if err != nil {
		return err
	}
	return alike("what differs", one, two)
}
