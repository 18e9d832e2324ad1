// Prints the protobuf form of every Kubernetes kind as JSON: what scripts/make_protobuf.py packs into the package.
//
// It reads the struct tags of the upstream Go types by reflection, so numbers, JSON names and which fields may be
// absent are facts of the release named in go.mod. Run it through make_protobuf.py, which documents the form.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"sort"
	"strconv"
	"strings"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// leaves are the types whose JSON form is not that of their fields.
var leaves = map[string]string{
	"meta/v1.Time": "time", "meta/v1.MicroTime": "micro", "meta/v1.Duration": "duration",
	"meta/v1.FieldsV1": "raw1", "runtime.RawExtension": "raw1", "resource.Quantity": "quantity",
	"intstr.IntOrString": "intstr", "apiextensions/v1.JSON": "raw1",
	"apiextensions/v1.JSONSchemaPropsOrArray":       "schema-or-array",
	"apiextensions/v1.JSONSchemaPropsOrBool":        "schema-or-bool",
	"apiextensions/v1.JSONSchemaPropsOrStringArray": "schema-or-strings",
}

type table struct {
	messages map[string][][]any
}

func name(t reflect.Type) string {
	path := t.PkgPath()
	for _, prefix := range []string{"k8s.io/api/", "k8s.io/apimachinery/pkg/apis/", "k8s.io/apimachinery/pkg/api/",
		"k8s.io/apimachinery/pkg/util/", "k8s.io/apimachinery/pkg/", "k8s.io/apiextensions-apiserver/pkg/apis/",
		"k8s.io/kube-aggregator/pkg/apis/", "k8s.io/metrics/pkg/apis/"} {
		path = strings.TrimPrefix(path, prefix)
	}
	return path + "." + t.Name()
}

// kind gives the compact type of one value; a slice with a name of its own is a message with one repeated field.
func (t *table) kind(goType reflect.Type) string {
	if goType.Kind() == reflect.Pointer {
		goType = goType.Elem()
	}
	if goType.PkgPath() != "" {
		if leaf, ok := leaves[name(goType)]; ok {
			return leaf
		}
	}
	switch goType.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "bool"
	case reflect.Int32, reflect.Int64, reflect.Int:
		return "int"
	case reflect.Float64, reflect.Float32:
		return "double"
	case reflect.Struct:
		return t.message(goType)
	case reflect.Slice:
		if goType.Elem().Kind() == reflect.Uint8 {
			return "bytes"
		}
		if _, isMessage := reflect.New(goType).Interface().(interface{ Unmarshal([]byte) error }); isMessage {
			return "items"
		}
		return "[]" + t.kind(goType.Elem())
	case reflect.Map:
		return "{}" + t.kind(goType.Elem())
	}
	panic(fmt.Sprintf("no form for %v", goType))
}

// message records a struct once. A field is [number, JSON name, type, mark]; the mark says what stands for "unset":
// "" when its zero is not written in JSON, "+" when the zero is a value, "^" when the members are inlined.
func (t *table) message(goType reflect.Type) string {
	if goType.Kind() == reflect.Pointer {
		goType = goType.Elem()
	}
	id := name(goType)
	if _, known := t.messages[id]; known {
		return id
	}
	t.messages[id] = [][]any{}
	fields := [][]any{}
	for index := 0; index < goType.NumField(); index++ {
		field := goType.Field(index)
		tag := strings.Split(field.Tag.Get("protobuf"), ",")
		if len(tag) < 2 {
			continue
		}
		number, err := strconv.Atoi(tag[1])
		if err != nil {
			continue
		}
		names := strings.Split(field.Tag.Get("json"), ",")
		mark := "+"
		for _, option := range names[1:] {
			if (option == "omitempty" || option == "omitzero") && field.Type.Kind() != reflect.Pointer {
				mark = ""
			}
		}
		if names[0] == "" {
			mark = "^"
		}
		if names[0] == "-" {
			continue
		}
		fields = append(fields, []any{number, names[0], t.kind(field.Type), mark})
	}
	sort.Slice(fields, func(i, j int) bool { return fields[i][0].(int) < fields[j][0].(int) })
	t.messages[id] = fields
	return id
}

func main() {
	all := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		scheme.AddToScheme, apiextensions.AddToScheme, apiregistration.AddToScheme, metrics.AddToScheme,
	} {
		if err := add(all); err != nil {
			panic(err)
		}
	}
	result := &table{messages: map[string][][]any{}}
	kinds, common := map[string]string{}, map[string]string{}
	for _, value := range []any{meta.PartialObjectMetadata{}, meta.PartialObjectMetadataList{}} {
		id := result.message(reflect.TypeOf(value))
		common[strings.TrimPrefix(id, "meta/v1.")] = id
	}
	for gvk, goType := range all.AllKnownTypes() {
		if gvk.Version == runtime.APIVersionInternal {
			continue
		}
		if _, ok := reflect.New(goType).Interface().(interface{ Unmarshal([]byte) error }); !ok {
			continue
		}
		id := result.message(goType)
		if strings.HasPrefix(id, "meta/v1.") {
			common[gvk.Kind] = id
			continue
		}
		kinds[schema.GroupVersion{Group: gvk.Group, Version: gvk.Version}.String()+"/"+gvk.Kind] = id
	}
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"messages": result.messages, "kinds": kinds, "common": common})
}
